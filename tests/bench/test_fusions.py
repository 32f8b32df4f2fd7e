"""`vqa bench fusions`: what it counts is right, and it measures what training runs. Times themselves are not tested."""

import pytest
import torch

from vqa.bench import fusions as bench
from vqa.bench.fusions import (
    FusionReading,
    FusionSizes,
    Rates,
    count_flops,
    measure_fusions,
    training_step,
)
from vqa.bench.gate import Ratio
from vqa.errors import InputError
from vqa.models import FUSIONS
from vqa.planning.operations import OperationCounter
from vqa.runtime.device import Machine

SMALL = FusionSizes(batch=2, regions=4, channels=8, tokens=3, question=16)
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


@pytest.mark.parametrize("name", FUSIONS)
def test_every_fusion_is_counted_with_its_defaults(name: str) -> None:
    assert count_flops(name, SMALL._replace(regions=9)) > 0 or name == "mcb"  # sketches and FFTs multiply no matrices


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


def test_readings_table_and_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "measure_rates", lambda machine: Rates(1e9, 1e9))
    measured = measure_fusions(["mcb", "product"], SMALL, CPU, repeat=1)
    assert [one.name for one in measured.readings] == ["mcb", "product"] and measured.rates == Rates(1e9, 1e9)
    for one in measured.readings:
        assert one.questions_per_second > 0 and one.of_product > 0 and one.bytes > 0
    table = measured.table()
    rates = [row.values[0] or 0.0 for row in table.rows]
    assert rates == sorted(rates, reverse=True) and all(rates)
    assert table.title.endswith("CPU, float32") and table.caption.startswith("Large matrix product 1 GFLOP/s")
    report = measured.report()
    assert report.ratios == {"mcb / product": Ratio(measured.readings[0].of_product)}
    rate = report.figures["mcb"]
    assert rate.bound is not None and report.title == table.title
    assert rate.value / rate.bound == pytest.approx(measured.readings[0].arithmetic + measured.readings[0].memory)


def test_an_unknown_fusion_is_named() -> None:
    with pytest.raises(InputError, match="did you mean 'product'"):
        measure_fusions(["prodct"], SMALL, CPU)
