"""The extraction bench: its numbers follow from what it measured, and its file has the ratios a gate compares."""

import json
from pathlib import Path

import pytest
import torch
from helpers_features import small_encoder
from PIL import Image
from torch import nn

from vqa.features.arithmetic import Arithmetic
from vqa.features.bench_extract import ExtractionBench, Round, count_flops, draw_photographs, print_extraction_bench
from vqa.features.encoder_choice import Measured
from vqa.features.extract import ExtractReport
from vqa.progress import console

FLOAT32, PLAIN = "float32 channels_last", Arithmetic(channels_last=False)


def test_shares_are_of_neighbouring_measurements() -> None:
    rounds = [Round(encoder, rate, ExtractReport.nothing()) for encoder, rate in ((10, 9), (20, 16), (5, 4.9))]
    bench = ExtractionBench(
        device="cpu", threads=2, decoding={1: 30.0, 2: 40.0}, writing=12.0, together={FLOAT32: rounds}, flops=1e9,
        ways=[Measured(Arithmetic(), 10.0, 1.0, 0.1), Measured(PLAIN, 4.0, 1.0, 0.1)], matrix_rate={"float32": 1e11},
    )  # fmt: skip
    bounds = bench.bounds(FLOAT32)
    assert bounds["encoder"] == pytest.approx(0.9)  # of 0.9, 0.8, 0.98
    assert bounds["slowest stage"] == pytest.approx(0.98)  # of 9/10, 16/12 (writing), 4.9/5
    assert bounds["shared cores"] == pytest.approx(9 * (1 / 40 + 1 / 10))  # between 4.9 * 0.225 and 16 * 0.075
    assert bench.ratios()["encoder float32 channels_last over float32"] == 2.5


def test_flops_are_those_of_the_convolutions() -> None:
    encoder, expected = small_encoder(), 0

    def note(layer: nn.Conv2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal expected
        expected += 2 * output.numel() * layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]

    hooks = [
        layer.register_forward_hook(note)  # type: ignore[arg-type]
        for layer in encoder.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    encoder(torch.zeros(1, 3, encoder.image_size, encoder.image_size, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    assert count_flops(encoder) == expected > 0


def test_drawn_pictures_are_different_photograph_sized_jpegs(tmp_path: Path) -> None:
    images = draw_photographs(tmp_path, 4)
    assert len({path.read_bytes() for path in images.paths}) == 4
    for path in images.paths:
        assert 40_000 < path.stat().st_size < 250_000
        with Image.open(path) as image:
            assert (image.format, image.size) == ("JPEG", (640, 480))


def test_the_command_writes_what_it_shows(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    with console.capture() as captured:
        print_extraction_bench(
            "squeezenet1_1", layer="features.4", image_size=32, pictures=6, batch_size=4, workers=2, compiled=False,
            json_file=file,
        )  # fmt: skip
    said, found = captured.get(), json.loads(file.read_text())
    assert "decoding, 2 threads" in said and f"together, {FLOAT32}" in said and "shared cores" in said
    assert set(found["decoding"]) == {"1", "2"} and found["writing"] > 0
    assert f"whole over slowest stage, {FLOAT32}" in found["ratios"]
    assert all(ratio > 0 for ratio in found["ratios"].values())
