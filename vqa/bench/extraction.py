"""`vqa bench extract`: each stage of an extraction alone, and all of them together, beside what bounds them.

Images are synthetic: JPEG, 640x480, of the size on disk that photographs have. Rates do not depend on what the
encoder's weights are, so random ones do.

Legend: `B` batch, `R` regions, `C` channels, `S` side of an image.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vqa.bench.bounds import matmul_rate
from vqa.bench.gate import BenchReport, Figure, Ratio
from vqa.bench.synthetic import make_photographs
from vqa.data.dataset import ImageTable
from vqa.features.cache.writer import CacheWriter
from vqa.features.encoders.registry import ImageEncoder, build_image_encoder
from vqa.features.extraction.autotune import Measurement, measure, measure_all
from vqa.features.extraction.extract import ExtractReport, extract, images_at_once
from vqa.features.precision import AS_BEFORE, NUMBER_TYPES, Precision
from vqa.progress import console, progress_bar

WIDTH, HEIGHT = 640, 480
ROUNDS = 3  # of the encoder alone and a whole extraction after it
ENDLESS = 10**9  # images, so that every way is measured
SLOWEST_STAGE_BAR = 0.85  # of the slowest stage's rate alone, reached by all together
ENCODER_BAR = 0.9  # of the encoder's own rate, with decoding hidden behind it; set for VGG16


@dataclass(frozen=True)
class ExtractionOptions:
    """What `vqa bench extract` measures.

    Attributes:
        encoder, layer, image_size, scaled_decoding: as `build_image_encoder` takes them.
        images: how many to make and extract.
        batch_size: images encoded at once; None takes what an extraction would.
        workers: threads that decode.
        compiled: measure compiled encoders too.
    """

    encoder: str = "vgg16"
    layer: str | None = None
    image_size: int = 224
    images: int = 192
    batch_size: int | None = None
    workers: int = 2
    scaled_decoding: bool = False
    compiled: bool = True

    @property
    def at_once(self) -> int:
        """Images encoded at once."""
        return self.batch_size or images_at_once(self.image_size)


class Round(NamedTuple):
    """The encoder alone, and right after it a whole extraction: images a second, and where the time went."""

    encoder: float
    rate: float
    report: ExtractReport


@dataclass(frozen=True)
class StageRates:
    """What was reached; rates in images a second.

    Attributes:
        device: what the encoder ran on.
        threads: torch's own threads.
        decoding: by number of decoding threads.
        ways: the encoder alone, by way of computing.
        writing: the cache alone.
        together: whole extractions by way of computing, each beside the encoder alone right before it: the machine's
            own rate drifts, so only neighbours are compared.
        flops: of one image in the encoder.
        matrix_rate: FLOP/s of a large matrix product, by number type.
    """

    device: str
    threads: int
    decoding: dict[int, float]
    ways: list[Measurement]
    writing: float
    together: dict[str, list[Round]]
    flops: float
    matrix_rate: dict[str, float]

    def bounds(self, way: str) -> dict[str, float]:
        """The median over the rounds of the whole's rate over each bound."""
        decoding, rounds = max(self.decoding.values()), self.together[way]
        found = {
            "slowest stage": median(one.rate / min(decoding, one.encoder, self.writing) for one in rounds),
            "encoder": median(one.rate / one.encoder for one in rounds),
        }
        if self.device == "cpu":  # decoding takes its processor time from the encoder's own cores
            found["shared cores"] = median(one.rate * (1 / decoding + 1 / one.encoder) for one in rounds)
        return found

    def ratios(self) -> dict[str, Ratio]:
        """What a regression gate compares; a GPU outruns decoding, so the encoder's bar is for a CPU."""
        bars = {"slowest stage": SLOWEST_STAGE_BAR} | ({"encoder": ENCODER_BAR} if self.device == "cpu" else {})
        found = {
            f"whole over {bound}, {way}": Ratio(ratio, bars.get(bound))
            for way in self.together
            for bound, ratio in self.bounds(way).items()
        }
        baseline = Precision(channels_last=False)
        plain = next(one.rate for one in self.ways if one.precision == baseline)
        return found | {
            f"encoder {one.precision} over float32": Ratio(one.rate / plain)
            for one in self.ways
            if not one.problem and one.precision != baseline
        }

    def figures(self) -> dict[str, Figure]:
        """Rates of each stage alone and of all together, beside what bounds them; and the machine's own."""
        unit, found = "images/s", {}
        for threads, rate in self.decoding.items():
            found[f"decoding, {threads} thread{'s' * (threads > 1)}"] = Figure(rate, unit)
        for one in self.ways:
            if not one.problem:
                bound = self.matrix_rate[one.precision.number_type] / self.flops
                found[f"encoder, {one.precision}"] = Figure(one.rate, unit, bound, "multiplying matrices")
        found["writing"] = Figure(self.writing, unit)
        others = min(max(self.decoding.values()), self.writing)
        for way, rounds in self.together.items():
            slowest = median(min(others, one.encoder) for one in rounds)
            found[f"together, {way}"] = Figure(median(one.rate for one in rounds), unit, slowest, "the slowest stage")
        found["encoder's work"] = Figure(self.flops / 1e9, "GFLOP an image")
        for name, rate in self.matrix_rate.items():
            found[f"large matrix product, {name}"] = Figure(rate / 1e9, "GFLOP/s")
        return found

    def note(self, images: int) -> str:
        """What was measured on what, and where the time of a whole extraction went."""
        lines = [
            f"{images:,} synthetic JPEG images of {WIDTH}x{HEIGHT} on {self.device}, torch {torch.__version__}, "
            f"{self.threads} threads. Ratios of the whole are medians of rounds, each beside the encoder alone right "
            f"before it."
        ]
        lines += [f"{way}, last round: {rounds[-1].report.times()}" for way, rounds in self.together.items()]
        if self.device == "cpu":
            lines.append("Shared cores: what is left when decoding takes its processor time from the encoder's cores.")
        return "\n".join(lines)


def measure_stages(encoder: ImageEncoder, options: ExtractionOptions) -> StageRates:
    """Measure every stage alone, then whole extractions in float32 and in the fastest way.

    Whether the fastest way agrees with float32 is not asked: that depends on weights, its rate does not.
    """
    device = next(encoder.parameters()).device
    with TemporaryDirectory(prefix="vqa-bench-") as folder, progress_bar() as bar:
        task = bar.add_task("measuring", total=5, note="making images")
        images = make_photographs(Path(folder), options.images, WIDTH, HEIGHT)
        bar.update(task, advance=1, note="decoding")
        threads = dict.fromkeys((1, options.workers))
        decoding = {count: _decoding_rate(encoder, images, count) for count in threads}
        bar.update(task, advance=1, note="encoder")
        ways = _encoder_rates(encoder, images, options)
        bar.update(task, advance=1, note="writing")
        writing = _writing_rate(encoder, images, Path(folder) / "writing.h5", options.at_once)
        bar.update(task, advance=1, note="together")
        fastest = max(ways, key=lambda one: one.rate).precision
        together = {str(way): _rounds(encoder, images, way, options) for way in dict.fromkeys([AS_BEFORE, fastest])}
        bar.advance(task)
    return StageRates(
        device=device.type,
        threads=torch.get_num_threads(),
        decoding=decoding,
        ways=ways,
        writing=writing,
        together=together,
        flops=count_flops(encoder),
        matrix_rate={name: matmul_rate(dtype, device) for name, dtype in NUMBER_TYPES.items()},
    )


def _encoder_rates(encoder: ImageEncoder, images: ImageTable, options: ExtractionOptions) -> list[Measurement]:
    """The encoder alone in every way that an extraction tries; compiled in bfloat16 where compiling is asked for."""
    sample_B3SS = _pixels(encoder, images, options.at_once)
    ways = measure_all(encoder, sample_B3SS, options.at_once, ENDLESS, compiled=None if options.compiled else False)
    compiled = Precision("bfloat16", compiled=True)
    if options.compiled and all(one.precision != compiled for one in ways):
        feature_BRC = encoder(sample_B3SS.to(next(encoder.parameters()).device)).cpu()
        ways.append(measure(encoder, compiled, sample_B3SS, feature_BRC, options.at_once))
    return ways


def _pixels(encoder: ImageEncoder, images: ImageTable, count: int) -> Tensor:
    """The first images as the encoder takes them, uint8 `[B, 3, S, S]`."""
    return torch.stack([encoder.load(path).pixels_3SS for path in images.paths[:count]])


def _rounds(encoder: ImageEncoder, images: ImageTable, way: Precision, options: ExtractionOptions) -> list[Round]:
    """The encoder alone over as many images as there are, then the whole extraction; again and again."""
    computing = encoder.with_precision(way)
    pixels_B3SS = _pixels(encoder, images, options.at_once).to(next(encoder.parameters()).device)
    computing(pixels_B3SS).cpu()
    batches = max(1, len(images.ids) // len(pixels_B3SS))
    found = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(batches):
            computing(pixels_B3SS).cpu()
        alone = batches * len(pixels_B3SS) / (time.perf_counter() - begin)
        out = images.paths[0].with_name("together.h5")
        report = extract(images, encoder, out, precision=way, batch_size=options.at_once, workers=options.workers)
        out.unlink()
        found.append(Round(alone, report.encoded / report.seconds, report))
    return found


def _decoding_rate(encoder: ImageEncoder, images: ImageTable, threads: int) -> float:
    """Images a second, from files to pixels."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(encoder.load, images.paths):
            pass
    return len(images.ids) / (time.perf_counter() - begin)


def _writing_rate(encoder: ImageEncoder, images: ImageTable, out: Path, batch_size: int) -> float:
    """Images a second, from features in memory to a cache on the disk."""
    digests = [f"{row:064x}" for row in range(len(images.ids))]
    feature_BRC = torch.rand(min(batch_size, len(images.ids)), encoder.regions, encoder.channels)
    with CacheWriter(out, images, encoder.attributes(), encoder.regions, encoder.channels) as writer:
        begin = time.perf_counter()
        for start in range(0, len(images.ids), batch_size):
            rows = np.arange(start, min(start + batch_size, len(images.ids)))
            writer.write(rows, feature_BRC[: len(rows)], [digests[row] for row in rows])
        writer.commit()
        return len(images.ids) / (time.perf_counter() - begin)


def count_flops(encoder: ImageEncoder) -> float:
    """Floating-point operations of one image, a multiplication and an addition counted as two."""
    device, side = next(encoder.parameters()).device, encoder.image_size
    with FlopCounterMode(display=False) as counter:
        encoder(torch.zeros(1, 3, side, side, dtype=torch.uint8, device=device))
    return float(counter.get_total_flops())


def bench_extraction(options: ExtractionOptions) -> BenchReport:
    """Measure an encoder's extraction on the GPU, where there is one.

    Raises:
        InputError: there is no such encoder or layer.
    """
    encoder = build_image_encoder(
        options.encoder,
        layer=options.layer,
        image_size=options.image_size,
        weights="random",
        scaled_decoding=options.scaled_decoding,
    ).to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    rates = measure_stages(encoder, options)
    _print_problems(rates.ways)
    title = f"Extraction: {options.encoder} {encoder.layer} at {options.image_size} px"
    return BenchReport(title, rates.note(options.images), rates.figures(), rates.ratios())


def _print_problems(ways: Sequence[Measurement]) -> None:
    """What could not be measured, and what random weights mean for bfloat16."""
    for one in ways:
        if one.problem:
            console.print(f"{one.precision}: {one.problem}")
        elif not one.agrees:
            console.print(
                f"{one.precision}: features differ from float32 (cosine {one.cosine:.3f}) with these random weights; "
                f"an extraction would not use it"
            )
