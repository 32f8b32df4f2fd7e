"""`vqa bench fusions`: what it counts is right, and it measures what training runs. Times themselves are not tested."""

import json
from pathlib import Path

import pytest
import torch

from vqa.errors import InputError
from vqa.training.bench import fusions as bench
from vqa.training.bench.fusions import (
    BenchSizes,
    FusionReading,
    Rates,
    bench_fusions,
    count_flops,
    fusion_table,
    print_fusion_bench,
    training_step,
)
from vqa.training.counting import OperationCounter
from vqa.training.experiment import TrainingSection
from vqa.training.prepare import Machine

SMALL = BenchSizes(batch=2, regions=4, channels=8, tokens=3, question=16)
CPU = Machine(torch.device("cpu"), False)


@pytest.mark.parametrize("name", ["product", "stacked_attention", "vis_lstm"])
def test_what_runs_is_what_is_counted(name: str) -> None:
    """The arithmetic of the real step is that of the meta device, but for a fused LSTM, which hides its own."""
    step = training_step(name, SMALL, CPU)
    with OperationCounter() as counter:
        step()
    counted = count_flops(name, SMALL)
    assert counter.flops < counted if name == "vis_lstm" else counter.flops == counted
    assert counter.bytes > 0


def test_the_product_counts_as_its_equation() -> None:
    """Forwards 2 FLOPs a weight; backwards 2 more, and for the question, which wants a gradient, 2 again."""
    image, question = 8 * 1024, 16 * 1024
    assert count_flops("product", SMALL) == SMALL.batch * (2 * (image + question) + 2 * image + 4 * question)


def reading(arithmetic: float, memory: float) -> FusionReading:
    return FusionReading("x", 1.0, 1.0, 1, 1, arithmetic, memory)


def test_what_bounds_a_fusion() -> None:
    assert reading(0.6, 0.2).bound == "arithmetic"
    assert reading(0.2, 0.6).bound == "memory"
    assert reading(0.2, 0.2).bound == "overhead"


def test_readings_table_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "measure_rates", lambda machine: Rates(1e9, 1e9))
    readings, rates, machine = bench_fusions(["mcb", "product"], SMALL, repeat=1, machine=CPU)
    assert [one.name for one in readings] == ["mcb", "product"] and machine == CPU
    assert rates == Rates(1e9, 1e9)
    for one in readings:
        assert one.questions_per_second > 0 and one.of_product > 0 and one.bytes > 0
    table = fusion_table(readings, Rates(1e9, 1e9), SMALL, CPU)
    assert [row.values[0] for row in table.rows] == sorted((row.values[0] for row in table.rows), reverse=True)
    print_fusion_bench(["sum"], SMALL, 1, TrainingSection(device="cpu", precision="float32"), tmp_path / "b.json")
    assert "CPU, float32. Large matrix product 1 GFLOP/s" in capsys.readouterr().out
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["fusions"][0]["name"] == "sum" and found["sizes"]["regions"] == 4


def test_an_unknown_fusion_is_named() -> None:
    with pytest.raises(InputError, match="did you mean 'product'"):
        bench_fusions(["prodct"], SMALL)
