"""`vqa bench train`: measure everything in turn, print it beside its bounds and bars, keep and compare it.

Legend: `B` batch.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from vqa.bench.baselines import (
    BaselineProduct,
    BaselineStackedAttention,
    image_every_question,
    loader_rate,
    steps_rate,
    usual_steps,
)
from vqa.bench.bounds import copy_rate, matmul_rate
from vqa.bench.gate import BenchReport, Figure, Ratio, conclude
from vqa.bench.memory import peak_of_training
from vqa.bench.ours import PRODUCT, STACKED_ATTENTION, StepMeasurement, gather_rate, measure_steps
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
from vqa.progress import console
from vqa.runtime.device import Machine, choose_machine

PARTS = ("data", "product", "san", "images", "memory")
CPU_QUESTIONS = 40_000
CPU_TABLE_BYTES = 400 << 20  # of each kind of features; larger than a processor's cache by far
USUAL_IMAGES = 1000  # held in float32 by the usual way of training; fewer is kinder to it
GIB = 1 << 30


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

    def figure(self, name: str, value: float, unit: str, bound: float | None = None, by: str = "") -> None:
        """Note a figure and say it."""
        self.report.figures[name] = Figure(value, unit, bound, by)
        console.print(f"  {name}: {value:,.4g} {unit}", markup=False)

    def ratio(self, name: str, value: float, bar: float | None) -> None:
        """Note a ratio."""
        self.report.ratios[name] = Ratio(value, bar)


def bench_training(
    *,
    questions: int | None = None,
    device: str = "auto",
    parts: tuple[str, ...] = PARTS,
    batch_size: int = 512,
    seconds: float = 4.0,
    json_file: Path | None = None,
    against: Path | None = None,
) -> None:
    """Measure the parts asked for, then print, keep and compare.

    Args:
        questions: how many to make up; by default VQA v2 train's on a GPU, 40,000 on a CPU.
        device: "auto", "cpu" or "cuda".
        parts: of `PARTS`.
        batch_size: of training.
        seconds: spent on each way of doing something.

    Raises:
        InputError: no such part or device.
        SlowerError: a ratio fell below the stored one's part.
    """
    for part in parts:
        if part not in PARTS:
            raise InputError(unknown_name("part", part, PARTS))
    where = choose_machine(device).device
    count = questions or (V2_TRAIN_QUESTIONS if where.type == "cuda" else CPU_QUESTIONS)
    note = (
        f"{count:,} made-up questions of VQA v2's lengths, batch {batch_size}, {where.type}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads. Ratios are of one run; "
        f"where nothing else is said, ours over the usual way."
    )
    report = BenchReport("Data path and training step", note)
    with TemporaryDirectory(prefix="vqa-bench-") as temporary:
        bench = _Bench(
            Path(temporary), where, make_questions(count, min(count, V2_TRAIN_IMAGES)), batch_size, seconds, report
        )
        for part in parts:
            console.print(f"[bold]{part}[/]")
            _MEASURES[part](bench)
    conclude(report, json_file=json_file, against=against)


def _data_path(bench: _Bench) -> None:
    """Batches alone, in float16 and by one thread, beside a Dataset of single rows in a DataLoader."""
    gpu = bench.device.type == "cuda"
    for shape, bar in ((FC7, 50.0), (POOL5, 30.0), (POOL5_448 if gpu else RES5, None)):
        cache = make_features(bench.folder / f"{shape.name}.h5", shape, bench.images(shape))
        prepared = prepare_synthetic(bench.dataset, cache, Machine(bench.device, False), torch.float16)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            ours = gather_rate(prepared, bench.batch_size, bench.seconds / 2)
            copied = copy_rate(bench.device)
        finally:
            torch.set_num_threads(threads)
        bench.figure(f"gather {shape.name}", ours, "questions/s", copied / shape.row_bytes, "copying memory")
        workers = 8 if gpu else 2
        usual = loader_rate(cache.path, prepared.train_questions.to(torch.device("cpu")), workers, bench.seconds)
        bench.figure(f"DataLoader, {workers} workers, {shape.name}", usual, "questions/s")
        bench.ratio(f"gather {shape.name} / DataLoader", ours / usual, None if gpu else bar)


def _training_step(bench: _Bench, part: str) -> None:
    """Whole steps in float32 and bfloat16, beside the usual way."""
    gpu = bench.device.type == "cuda"
    shape = FC7 if part == "product" else POOL5_448 if gpu else POOL5
    sections, bars = (PRODUCT, (3.0, 7.0)) if part == "product" else (STACKED_ATTENTION, (1.5, 4.5))
    cache = make_features(bench.folder / f"{shape.name}.h5", shape, bench.images(shape))
    prepared = prepare_synthetic(bench.dataset, cache, Machine(bench.device, False), None)
    vocabulary = len(prepared.words)
    some_NRC = torch.rand(min(USUAL_IMAGES, len(prepared.features)), shape.regions, shape.channels)
    kind: type[nn.Module] = BaselineProduct if part == "product" else BaselineStackedAttention
    model = kind(vocabulary, shape.channels)
    step = usual_steps(model, some_NRC, prepared.train_questions, bench.batch_size, bench.device)
    usual = steps_rate(step, bench.seconds, bench.device)
    del model, some_NRC, step
    bench.figure(f"usual step, {part}", usual, "questions/s")
    for precision, bar in zip(("float32", "bfloat16"), bars, strict=True):
        machine = Machine(bench.device, precision == "bfloat16")
        if precision == "bfloat16":
            del prepared
            prepared = prepare_synthetic(bench.dataset, cache, machine, None)
        seen = measure_steps(prepared, sections, bench.batch_size, 2 * bench.seconds)
        rate = matmul_rate(torch.bfloat16 if machine.bfloat16 else torch.float32, bench.device)
        _note_steps(bench, f"{part} {precision}", seen, rate)
        bench.ratio(f"{part} {precision} / usual step", seen.rate / usual, None if gpu else bar)


def _note_steps(bench: _Bench, name: str, seen: StepMeasurement, matmul: float) -> None:
    bench.figure(f"step, {name}", seen.rate, "questions/s", matmul / seen.flops, "multiplying matrices")
    bench.figure(f"waiting for data, {name}", 100 * seen.waited, "% of the time")
    doing = "kernels" if bench.device.type == "cuda" else "operators"
    bench.figure(f"{doing}, {name}", 100 * seen.spent.busy, "% of the time")
    for costly, share in seen.spent.costliest.items():
        bench.figure(f"{name}: {costly}", 100 * share, "% of the time")
    if bench.device.type == "cuda":
        bench.figure(f"epoch, {name}", len(bench.dataset) / seen.rate, "s")
    bench.ratio(f"{name}: rate / same batch again", seen.rate / seen.again, 0.9)
    bench.ratio(f"{name}: time not waiting", 1 - seen.waited, 0.97)


def _product(bench: _Bench) -> None:
    _training_step(bench, "product")


def _san(bench: _Bench) -> None:
    _training_step(bench, "san")


def _images(bench: _Bench) -> None:
    """The product's step beside decoding and encoding every question's image every time, as basic_vqa does."""
    cache = make_features(bench.folder / f"{FC7.name}.h5", FC7, bench.images(FC7))
    machine = choose_machine(bench.device.type)
    prepared = prepare_synthetic(bench.dataset, cache, machine, None)
    ours = measure_steps(prepared, PRODUCT, bench.batch_size, bench.seconds).rate
    step = image_every_question(len(prepared.words), bench.folder, bench.device, 16)
    usual = steps_rate(step, bench.seconds, bench.device)
    bench.figure("usual step, VGG19 on every question", usual, "questions/s")
    bench.ratio("product / VGG19 on every question", ours / usual, 400.0)


def _memory(bench: _Bench) -> None:
    """Peak memory of training in a process of its own, beside the size of the cache."""
    cache = make_features(bench.folder / f"{POOL5.name}.h5", POOL5, bench.images(POOL5))
    size = len(cache) * cache.row_bytes
    peak = peak_of_training(cache.path, bench.device, min(len(bench.dataset), 8 * bench.batch_size), bench.batch_size)
    bench.figure("peak memory beyond the cache", (peak - size) / GIB, "GiB", 1.5, "the bar")
    bench.ratio("(cache + 1.5 GiB) / peak memory", (size + 1.5 * GIB) / peak, 1.0)


_MEASURES = {"data": _data_path, "product": _product, "san": _san, "images": _images, "memory": _memory}
