"""`vqa bench fusions`: how fast each fusion trains beside the plain product, and what its time goes into.

Every fusion, with its default options, runs forwards and backwards on the same synthetic batch; steps of the product
run in between, so that a machine that slows down slows both. Each operation has a least time: its arithmetic over the
rate of a large matrix product, or its bytes over the rate of a copy, both measured here, whichever is longer. What the
least times do not explain is overhead: starting operations, small matrices, look-ups out of order.

Legend: `B` batch, `T` tokens, `R` regions, `C` channels, `D` width.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from vqa.bench.bounds import copy_rate, matmul_rate, timed
from vqa.bench.gate import BenchReport, Figure, Ratio
from vqa.errors import InputError, unknown_name
from vqa.models import FUSIONS, Fusion, Image, Question
from vqa.models.options import takes
from vqa.planning.operations import OperationCounter
from vqa.progress import progress_bar
from vqa.runtime.device import Machine
from vqa.tables import Column, Row, Table

PRODUCT = "product"
COPIED_BYTES = 2**26


class FusionSizes(NamedTuple):
    """The sizes of the synthetic batch."""

    batch: int = 256
    regions: int = 49
    channels: int = 512
    tokens: int = 8
    question: int = 1024


class Rates(NamedTuple):
    """What the machine reaches: floating-point operations and bytes a second."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class FusionReading:
    """One fusion's measurement.

    Attributes:
        name: of the fusion.
        questions_per_second: forward and backward, without classifier and optimiser.
        of_product: the same over the product's in the same minutes.
        flops, bytes: per question, forward and backward.
        arithmetic: share of its time that operations bound by arithmetic explain.
        memory: share that operations bound by memory explain; above 1 where the caches are faster than a large copy.
    """

    name: str
    questions_per_second: float
    of_product: float
    flops: int
    bytes: int
    arithmetic: float
    memory: float

    @property
    def bound(self) -> str:
        """What most of the time goes into."""
        if self.arithmetic + self.memory < 0.5:
            return "overhead"
        return "arithmetic" if self.arithmetic >= self.memory else "memory"


@dataclass(frozen=True)
class FusionReadings:
    """What was measured, and with what.

    Attributes:
        readings: one a fusion.
        rates: what the machine reaches.
        sizes: of the batch.
        machine: device and precision.
    """

    readings: list[FusionReading]
    rates: Rates
    sizes: FusionSizes
    machine: Machine

    @property
    def title(self) -> str:
        """What was measured: the ratios depend on all of it."""
        sizes = self.sizes
        return (
            f"Fusions, forward and backward: batch {sizes.batch}, {sizes.regions} x {sizes.channels} regions, question "
            f"{sizes.question}, {sizes.tokens} words; {self.machine}"
        )

    def table(self) -> Table:
        """The measurements, the fastest first."""
        columns = (
            Column("questions/s", decimals=0),
            Column("MFLOP", "a question", decimals=2),
            Column("kB", "a question", decimals=0),
            Column("arithmetic", "% of its time", decimals=0),
            Column("memory", "% of its time", decimals=0),
        )
        rows = [
            Row(
                f"{one.name} ({one.bound})",
                (one.questions_per_second, one.flops / 1e6, one.bytes / 1e3, 100 * one.arithmetic, 100 * one.memory),
            )
            for one in sorted(self.readings, key=lambda one: -one.questions_per_second)
        ]
        caption = (
            f"Large matrix product {self.rates.flops / 1e9:,.0f} GFLOP/s, copy {self.rates.bytes / 1e9:,.1f} GB/s."
        )
        return Table(self.title, caption, columns, tuple(rows), row_heading="Fusion (bound by)", best="none")

    def report(self) -> BenchReport:
        """The measurements with their bounds, and every fusion's speed over the product's."""
        note = "Ratios are of questions/s, over the product's in the same minutes."
        report = BenchReport(self.title, note, table=self.table())
        for one in self.readings:
            bound = one.questions_per_second / (one.arithmetic + one.memory)
            report.figures[one.name] = Figure(one.questions_per_second, "questions/s", bound, "arithmetic and memory")
            report.figures[f"{one.name}: work"] = Figure(one.flops / 1e6, "MFLOP a question")
            report.figures[f"{one.name}: moved"] = Figure(one.bytes / 1e3, "kB a question")
            if one.name != PRODUCT:
                report.ratios[f"{one.name} / product"] = Ratio(one.of_product)
        report.figures["large matrix product"] = Figure(self.rates.flops / 1e9, "GFLOP/s")
        report.figures["copy"] = Figure(self.rates.bytes / 1e9, "GB/s")
        return report


def measure_fusions(names: Sequence[str], sizes: FusionSizes, machine: Machine, repeat: int = 5) -> FusionReadings:
    """Measure fusions.

    Args:
        names: keys of `FUSIONS`; none are all.
        sizes: of the batch.
        machine: device and precision.
        repeat: pairs of measurements, product and fusion, of which the median counts.

    Raises:
        InputError: an unknown fusion.
    """
    unknown = [name for name in names if name not in FUSIONS]
    if unknown:
        raise InputError(unknown_name("fusion", unknown[0], FUSIONS))
    rates = measure_rates(machine)
    product = training_step(PRODUCT, sizes, machine)
    chosen = list(names or FUSIONS)
    with progress_bar() as bar:
        task = bar.add_task("fusions", total=len(chosen), note="")
        readings = []
        for name in chosen:
            bar.update(task, note=name)
            readings.append(_read(name, product, sizes, rates, repeat, machine))
            bar.advance(task)
    return FusionReadings(readings, rates, sizes, machine)


def _read(
    name: str, product: Callable[[], None], sizes: FusionSizes, rates: Rates, repeat: int, machine: Machine
) -> FusionReading:
    step = training_step(name, sizes, machine)
    with OperationCounter() as counter:
        step()
    flops = max(count_flops(name, sizes), counter.flops)  # a fused LSTM or attention hides its own
    arithmetic = (flops - counter.flops) / rates.flops
    memory = 0.0
    for operation in counter.operations:
        computing, moving = operation.flops / rates.flops, operation.bytes / rates.bytes
        arithmetic += computing if computing >= moving else 0.0
        memory += moving if moving > computing else 0.0
    product()  # the first ones allocate
    step()
    pairs = [(timed(product, machine.device), timed(step, machine.device)) for _ in range(repeat)]
    taken = statistics.median(own for _, own in pairs)
    return FusionReading(
        name=name,
        questions_per_second=sizes.batch / taken,
        of_product=statistics.median(base / own for base, own in pairs),
        flops=round(flops / sizes.batch),
        bytes=round(counter.bytes / sizes.batch),
        arithmetic=arithmetic / taken,
        memory=memory / taken,
    )


def training_step(name: str, sizes: FusionSizes, machine: Machine) -> Callable[[], None]:
    """One forward and backward pass of a fusion over a synthetic batch, as training runs it."""
    torch.manual_seed(0)
    fusion = make_fusion(name, sizes).to(machine.device).train()
    image, question = make_batch(sizes, machine.device)
    image = image._replace(regions_IRC=image.regions_IRC.to(machine.feature_dtype))

    def step() -> None:
        fusion.zero_grad(set_to_none=True)
        with machine.autocast():
            vector_BD = fusion(image, question).vector_BD
        vector_BD.backward(torch.ones_like(vector_BD))
        question.words_BTD.grad = question.sentence_BD.grad = None

    return step


def count_flops(name: str, sizes: FusionSizes) -> int:
    """Floating-point operations of one step, counted where nothing is fused and nothing computed."""
    with torch.device("meta"):
        fusion = make_fusion(name, sizes)
    image, question = make_batch(sizes, torch.device("meta"))
    with OperationCounter() as counter:
        vector_BD = fusion.to("meta").train()(image, question).vector_BD
        vector_BD.backward(torch.empty_like(vector_BD))
    return counter.flops


def make_fusion(name: str, sizes: FusionSizes) -> Fusion:
    """A fusion with its default options."""
    given = {"image_dim": sizes.channels, "regions": sizes.regions}
    given |= {"question_dim": sizes.question, "word_dim": sizes.question}
    return FUSIONS[name](**takes(FUSIONS[name], given))


def make_batch(sizes: FusionSizes, device: torch.device) -> tuple[Image, Question]:
    """Region features after a ReLU, where they lie, and questions of equal length that want a gradient."""
    image_BRC = torch.randn(sizes.batch, sizes.regions, sizes.channels, device=device).relu()
    corner_BR2 = torch.rand(sizes.batch, sizes.regions, 2, device=device) / 2
    boxes_BR4 = torch.cat([corner_BR2, corner_BR2 + torch.rand_like(corner_BR2) / 2], dim=2)
    words_BTD = torch.randn(sizes.batch, sizes.tokens, sizes.question, device=device, requires_grad=True)
    sentence_BD = torch.randn(sizes.batch, sizes.question, device=device, requires_grad=True)
    mask_BT = torch.ones(sizes.batch, sizes.tokens, dtype=torch.bool, device=device)
    return Image(image_BRC, boxes_IR4=boxes_BR4), Question(words_BTD, sentence_BD, mask_BT)


def measure_rates(machine: Machine) -> Rates:
    """The rate of a large matrix product in the precision of training, and of a copy, which reads and writes."""
    dtype = torch.bfloat16 if machine.bfloat16 else torch.float32
    return Rates(matmul_rate(dtype, machine.device), 2 * copy_rate(machine.device, size=COPIED_BYTES))
