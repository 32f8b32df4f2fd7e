"""The extraction bench: its numbers follow from what it measured, and its ratios have the bars they should reach."""

from pathlib import Path

import pytest
import torch
from helpers.features import small_encoder
from PIL import Image
from torch import nn

from vqa.bench.extraction import HEIGHT, WIDTH, Round, StageRates, count_flops
from vqa.bench.gate import Figure, Ratio
from vqa.bench.synthetic import make_photographs
from vqa.features.extraction.autotune import Measurement
from vqa.features.extraction.extract import ExtractReport
from vqa.features.precision import Precision

FLOAT32, PLAIN = "float32 channels_last", Precision(channels_last=False)


def test_shares_are_of_neighbouring_measurements() -> None:
    rounds = [Round(encoder, rate, ExtractReport.nothing()) for encoder, rate in ((10, 9), (20, 16), (5, 4.9))]
    rates = StageRates(
        device="cpu", threads=2, decoding={1: 30.0, 2: 40.0}, writing=12.0, together={FLOAT32: rounds}, flops=1e9,
        ways=[Measurement(Precision(), 10.0, 1.0, 0.1), Measurement(PLAIN, 4.0, 1.0, 0.1)],
        matrix_rate={"float32": 1e11},
    )  # fmt: skip
    bounds = rates.bounds(FLOAT32)
    assert bounds["encoder"] == pytest.approx(0.9)  # of 0.9, 0.8, 0.98
    assert bounds["slowest stage"] == pytest.approx(0.98)  # of 9/10, 16/12 (writing), 4.9/5
    assert bounds["shared cores"] == pytest.approx(9 * (1 / 40 + 1 / 10))  # between 4.9 * 0.225 and 16 * 0.075
    ratios, figures = rates.ratios(), rates.figures()
    assert ratios["encoder float32 channels_last over float32"] == Ratio(2.5)
    assert ratios[f"whole over encoder, {FLOAT32}"].value == pytest.approx(0.9)
    assert ratios[f"whole over encoder, {FLOAT32}"].bar == 0.9
    assert figures[f"encoder, {FLOAT32}"] == Figure(10.0, "images/s", 100.0, "multiplying matrices")  # 1e11 / 1e9
    assert figures[f"together, {FLOAT32}"].bound == 10  # of 10, 12 (writing), 5
    assert figures["decoding, 2 threads"].value == 40 and figures["decoding, 1 thread"].value == 30
    assert "the bound is" in rates.note(6) and "Shared cores" in rates.note(6)


def test_flops_are_those_of_the_convolutions() -> None:
    encoder, expected = small_encoder(), 0

    def note(layer: nn.Conv2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal expected
        expected += 2 * output.numel() * layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]

    hooks = [layer.register_forward_hook(note) for layer in encoder.modules() if isinstance(layer, nn.Conv2d)]
    encoder(torch.zeros(1, 3, encoder.image_size, encoder.image_size, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    assert count_flops(encoder) == expected > 0


def test_synthetic_photographs_differ_and_are_as_large_as_real_ones(tmp_path: Path) -> None:
    images = make_photographs(tmp_path, 4, WIDTH, HEIGHT)
    assert len({path.read_bytes() for path in images.paths}) == 4
    for path in images.paths:
        assert 40_000 < path.stat().st_size < 250_000
        with Image.open(path) as image:
            assert (image.format, image.size) == ("JPEG", (640, 480))
