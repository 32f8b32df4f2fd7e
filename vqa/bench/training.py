"""`vqa bench train`: the data path and the training step, beside baselines and what bounds them.

Legend: `B` batch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch

from vqa.bench.bounds import copy_rate, matmul_rate
from vqa.bench.gate import BenchReport, Figure, Ratio
from vqa.bench.memory import peak_of_training
from vqa.bench.steps.baselines import (
    BaselineProduct,
    BaselineStackedAttention,
    baseline_steps,
    encoding_steps,
    loader_rate,
    steps_rate,
)
from vqa.bench.steps.gathers import feature_rates, numbered_table, question_rates
from vqa.bench.steps.ours import PRODUCT, STACKED_ATTENTION, StepMeasurement, begin, gather_rate, measure_steps
from vqa.bench.steps.sharing import QUESTIONS_AN_IMAGE, evaluation_rates, training_rates
from vqa.bench.synthetic import (
    FC7,
    POOL5,
    POOL5_448,
    RES5,
    V2_TRAIN_IMAGES,
    V2_TRAIN_QUESTIONS,
    Shape,
    make_features,
    make_questions,
    prepare_synthetic,
)
from vqa.data.dataset import QADataset
from vqa.errors import InputError, unknown_name
from vqa.features.cache.reader import FeatureCache
from vqa.progress import console
from vqa.runtime.device import Machine, choose_machine
from vqa.training.inputs.prepare import TrainingData

CPU_QUESTIONS = 40_000
CPU_TABLE_BYTES = 400 << 20  # of each kind of features; larger than a processor's cache by far
BASELINE_IMAGES = 1000  # held in float32 by the baseline's training; fewer is kinder to it
GIB = 1 << 30
BASELINE_STEP = "usual step"  # the baseline's name in stored benchmarks, which later ones are compared with
TRAINING_PARTS = ("data", "product", "san", "shared", "images", "memory")


@dataclass(frozen=True)
class TrainingOptions:
    """What `vqa bench train` measures.

    Attributes:
        questions: how many to make; None takes VQA v2 train's on a GPU, 40,000 on a CPU.
        device: "auto", "cpu" or "cuda".
        parts: of `TRAINING_PARTS`, in this order.
        batch_size: of training.
        seconds: spent on each way of doing something.
    """

    questions: int | None = None
    device: str = "auto"
    parts: tuple[str, ...] = TRAINING_PARTS
    batch_size: int = 512
    seconds: float = 4.0


@dataclass(frozen=True)
class _Bench:
    """What the parts share."""

    folder: Path
    device: torch.device
    dataset: QADataset
    batch_size: int
    seconds: float
    report: BenchReport

    def images(self, shape: Shape) -> int:
        """How many images of this kind: VQA v2's on a GPU, what fits `CPU_TABLE_BYTES` on a CPU."""
        if self.device.type == "cuda":
            return min(V2_TRAIN_IMAGES, len(self.dataset))
        return max(1, min(CPU_TABLE_BYTES // shape.row_bytes, len(self.dataset)))

    def features(self, shape: Shape) -> FeatureCache:
        """A cache of features of this kind, made when a part first asks for it."""
        return make_features(self.folder / f"{shape.name}.h5", shape, self.images(shape))

    def figure(self, name: str, value: float, unit: str, bound: float | None = None, by: str = "") -> None:
        """Note a figure and say it."""
        self.report.figures[name] = Figure(value, unit, bound, by)
        console.print(f"  {name}: {value:,.4g} {unit}")

    def ratio(self, name: str, value: float, bar: float | None) -> None:
        """Note a ratio."""
        self.report.ratios[name] = Ratio(value, bar)


def bench_training(options: TrainingOptions) -> BenchReport:
    """Measure the parts asked for; raises InputError where there is no such part or device."""
    for part in options.parts:
        if part not in TRAINING_PARTS:
            raise InputError(unknown_name("part", part, TRAINING_PARTS))
    device = choose_machine(options.device).device
    count = options.questions or (V2_TRAIN_QUESTIONS if device.type == "cuda" else CPU_QUESTIONS)
    note = (
        f"{count:,} synthetic questions of VQA v2's lengths, batch {options.batch_size}, {device.type}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads. Ratios are of one run; "
        f"where nothing else is said, ours over the baseline."
    )
    report = BenchReport("Data path and training step", note)
    with TemporaryDirectory(prefix="vqa-bench-") as folder:
        dataset = make_questions(count, min(count, V2_TRAIN_IMAGES))
        bench = _Bench(Path(folder), device, dataset, options.batch_size, options.seconds, report)
        for part in options.parts:
            console.print(part, style="bold")
            _MEASURES[part](bench)
    return report


def _data_path(bench: _Bench) -> None:
    """Batches alone, in float16 and by one thread, beside a Dataset of single rows in a DataLoader."""
    gpu = bench.device.type == "cuda"
    for shape, bar in ((FC7, 50.0), (POOL5, 30.0), (POOL5_448 if gpu else RES5, None)):
        cache = bench.features(shape)
        prepared = prepare_synthetic(bench.dataset, cache, Machine(bench.device, False), torch.float16)
        with _one_thread():
            ours = gather_rate(prepared, bench.batch_size, bench.seconds / 2)
            copied = copy_rate(bench.device)
        bench.figure(f"gather {shape.name}", ours, "questions/s", copied / shape.row_bytes, "copying memory")
        workers = 8 if gpu else 2
        questions = prepared.train_questions
        baseline = loader_rate(cache.path, questions.to(torch.device("cpu")), workers, bench.seconds)
        bench.figure(f"DataLoader, {workers} workers, {shape.name}", baseline, "questions/s")
        bench.ratio(f"gather {shape.name} / DataLoader", ours / baseline, None if gpu else bar)
        del prepared  # before another table is made
        with _one_thread():
            rates = feature_rates(numbered_table(len(cache), shape, bench.device), bench.batch_size)
        for way, rate in rates.items():
            bench.figure(f"{way} alone, {shape.name}", rate, "rows/s", copied / shape.row_bytes, "copying memory")
    for way, rate in question_rates(questions, bench.batch_size).items():
        bench.figure(f"tokens and targets, {way}", rate, "questions/s")


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _training_step(bench: _Bench, part: Literal["product", "san"]) -> None:
    """Whole steps in float32 and bfloat16, beside the baseline's."""
    gpu = bench.device.type == "cuda"
    shape = FC7 if part == "product" else POOL5_448 if gpu else POOL5
    sections, bars = (PRODUCT, (3.0, 7.0)) if part == "product" else (STACKED_ATTENTION, (1.5, 4.5))
    prepared = prepare_synthetic(bench.dataset, bench.features(shape), Machine(bench.device, False), None)
    baseline = _baseline_rate(bench, part, prepared)
    bench.figure(f"{BASELINE_STEP}, {part}", baseline, "questions/s")
    for precision, bar in zip(("float32", "bfloat16"), bars, strict=True):
        machine = Machine(bench.device, precision == "bfloat16")
        if precision == "bfloat16":
            del prepared  # before the next table is made
            prepared = prepare_synthetic(bench.dataset, bench.features(shape), machine, None)
        seen = measure_steps(prepared, sections, bench.batch_size, 2 * bench.seconds)
        rate = matmul_rate(torch.bfloat16 if machine.bfloat16 else torch.float32, bench.device)
        _note_steps(bench, f"{part} {precision}", seen, rate)
        bench.ratio(f"{part} {precision} / {BASELINE_STEP}", seen.rate / baseline, None if gpu else bar)


def _baseline_rate(bench: _Bench, part: Literal["product", "san"], prepared: TrainingData) -> float:
    """Questions/s of the same model in plain PyTorch, its features in memory."""
    regions, channels = prepared.features.regions, prepared.features.channels
    some_NRC = torch.rand(min(BASELINE_IMAGES, len(prepared.features)), regions, channels)
    kind = BaselineProduct if part == "product" else BaselineStackedAttention
    model = kind(len(prepared.words), channels)
    step = baseline_steps(model, some_NRC, prepared.train_questions, bench.batch_size, bench.device)
    return steps_rate(step, bench.seconds, bench.device)


def _note_steps(bench: _Bench, name: str, seen: StepMeasurement, matmul: float) -> None:
    """What the steps reached, beside a bound of `matmul` FLOP/s, and what their time went into."""
    bench.figure(f"step, {name}", seen.rate, "questions/s", matmul / seen.flops, "multiplying matrices")
    bench.figure(f"waiting for data, {name}", 100 * seen.waited, "% of the time")
    doing = "kernels" if bench.device.type == "cuda" else "operators"
    bench.figure(f"{doing}, {name}", 100 * seen.spent.busy, "% of the time")
    for costly, share in seen.spent.costliest.items():
        bench.figure(f"{name}: {costly}", 100 * share, "% of the time")
    if bench.device.type == "cuda":
        bench.figure(f"epoch, {name}", len(bench.dataset) / seen.rate, "s")
    _note_device(bench, name, seen)
    bench.ratio(f"{name}: rate / same batch again", seen.rate / seen.again, 0.9)
    bench.ratio(f"{name}: time not waiting", 1 - seen.waited, 0.97)


def _note_device(bench: _Bench, name: str, seen: StepMeasurement) -> None:
    """What a step makes a GPU do; nothing is noted of a CPU, which has none of it."""
    for what, value in (("kernels", seen.kernels), ("launches", seen.launches), ("waits of the host", seen.host_waits)):
        if value is not None:
            bench.figure(f"{what} a step, {name}", value, "")
    if seen.peak_bytes is not None:
        bench.figure(f"peak GPU memory, {name}", seen.peak_bytes / GIB, "GiB")


def _shared(bench: _Bench) -> None:
    """Batches by image beside random ones, at VQA v2's number of questions an image."""
    count = min(len(bench.dataset), int(bench.images(POOL5) * QUESTIONS_AN_IMAGE))
    dataset = make_questions(count, round(count / QUESTIONS_AN_IMAGE))
    for shape, name, sections, bars in (
        (POOL5, "san", STACKED_ATTENTION, {"float32": (2.5, 2.0), "bfloat16": (None, 1.6)}),
        (FC7, "product", PRODUCT, {"float32": (1.0, 1.0)}),
    ):
        for precision, (evaluated, trained) in bars.items():
            machine = Machine(bench.device, precision == "bfloat16")
            training = begin(
                prepare_synthetic(dataset, bench.features(shape), machine, None), sections, bench.batch_size
            )
            for what, measure, bar in (
                ("training", training_rates, trained),
                ("evaluation", evaluation_rates, evaluated),
            ):
                rates = measure(training, bench.batch_size, 2 * bench.seconds)
                bench.figure(f"{what}, {name} {precision}, an image a question", rates.apart, "questions/s")
                bench.figure(f"{what}, {name} {precision}, by image", rates.shared, "questions/s")
                bench.ratio(f"{what} by image / random, {name} {precision}", rates.shared / rates.apart, bar)


def _images(bench: _Bench) -> None:
    """The product's step beside decoding and encoding every question's image every time, as basic_vqa does."""
    prepared = prepare_synthetic(bench.dataset, bench.features(FC7), choose_machine(bench.device.type), None)
    ours = measure_steps(prepared, PRODUCT, bench.batch_size, bench.seconds).rate
    step = encoding_steps(len(prepared.words), bench.folder, bench.device, 16)
    baseline = steps_rate(step, bench.seconds, bench.device)
    bench.figure(f"{BASELINE_STEP}, VGG19 on every question", baseline, "questions/s")
    bench.ratio("product / VGG19 on every question", ours / baseline, 400.0)


def _memory(bench: _Bench) -> None:
    """Peak memory of training in a process of its own, beside the size of the cache, where the table lies."""
    cache = bench.features(POOL5)
    size = len(cache) * cache.row_bytes
    questions = min(len(bench.dataset), 8 * bench.batch_size)
    cost = peak_of_training(cache.path, bench.device.type, questions, bench.batch_size)
    on_gpu = cost.device_peak_bytes is not None
    peak = cost.device_peak_bytes or cost.peak_bytes
    place = " GPU" if on_gpu else ""
    bench.figure(f"peak{place} memory beyond the cache", (peak - size) / GIB, "GiB", 1.5, "the bar")
    bench.ratio(f"(cache + 1.5 GiB) / peak{place} memory", (size + 1.5 * GIB) / peak, 1.0)
    if on_gpu:  # the table passed through it
        bench.figure("peak main memory, the table on the GPU", cost.peak_bytes / GIB, "GiB")


_MEASURES: dict[str, Callable[[_Bench], None]] = {
    "data": _data_path,
    "product": partial(_training_step, part="product"),
    "san": partial(_training_step, part="san"),
    "shared": _shared,
    "images": _images,
    "memory": _memory,
}
