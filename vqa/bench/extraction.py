"""`vqa bench extract`: each stage of an extraction alone, and all of them together, beside what bounds them.

Images are drawn: JPEG, 640x480, of the size on disk that photographs have. Rates do not depend on what the encoder's
weights are, so random ones do.

Legend: `B` batch, `R` regions, `C` channels.
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
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from vqa.bench.gate import BenchReport, Figure, Ratio, conclude
from vqa.data.dataset import ImageTable
from vqa.features.cache.writer import CacheWriter
from vqa.features.encoders.registry import ImageEncoder, build_image_encoder
from vqa.features.extraction.autotune import Measurement, measure, measure_all
from vqa.features.extraction.extract import ExtractReport, extract, images_at_once
from vqa.features.precision import AS_BEFORE, Precision
from vqa.progress import console, progress_bar

WIDTH, HEIGHT = 640, 480
ENDLESS = 10**9  # images, so that every way is measured
SLOWEST_STAGE_BAR = 0.85  # of the slowest stage's rate alone, reached by all together
ENCODER_BAR = 0.9  # of the encoder's own rate, with decoding hidden behind it; set for VGG16
MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}  # large enough for the device's full rate


class Round(NamedTuple):
    """The encoder alone, and right after it a whole extraction: images a second, and where the time went."""

    encoder: float
    rate: float
    report: ExtractReport


@dataclass(frozen=True)
class ExtractionBench:
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
    together: "dict[str, list[Round]]"
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
        usual = Precision(channels_last=False)
        plain = next(one.rate for one in self.ways if one.precision == usual)
        return found | {
            f"encoder {one.precision} over float32": Ratio(one.rate / plain)
            for one in self.ways
            if not one.problem and one.precision != usual
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


def bench_extraction(
    encoder: ImageEncoder,
    count: int,
    *,
    batch_size: int = 32,
    workers: int = 2,
    rounds: int = 3,
    compiled: bool = True,
) -> ExtractionBench:
    """Measure every stage alone, then whole extractions in float32 and in the fastest way.

    Whether the fastest way agrees with float32 is not asked: that depends on weights, its rate does not.
    """
    device = next(encoder.parameters()).device
    with TemporaryDirectory() as folder, progress_bar() as bar:
        task = bar.add_task("measuring", total=5, note="drawing images")
        images = draw_photographs(Path(folder), count)
        bar.update(task, advance=1, note="decoding")
        decoding = {threads: _decoding_rate(encoder, images, threads) for threads in dict.fromkeys((1, workers))}
        bar.update(task, advance=1, note="encoder")
        sample = torch.stack([encoder.load(path).pixels_3SS for path in images.paths[:batch_size]])
        ways = measure_all(encoder, sample, batch_size, ENDLESS, compiled=None if compiled else False)
        if compiled and not any(one.precision == Precision("bfloat16", compiled=True) for one in ways):
            feature_BRC = encoder(sample.to(device)).cpu()
            ways.append(measure(encoder, Precision("bfloat16", compiled=True), sample, feature_BRC, batch_size))
        bar.update(task, advance=1, note="writing")
        writing = _writing_rate(encoder, images, Path(folder) / "writing.h5", batch_size)
        bar.update(task, advance=1, note="together")
        fastest = max(ways, key=lambda one: one.rate).precision
        together = {
            str(way): _rounds(encoder, images, way, rounds, batch_size, workers)
            for way in dict.fromkeys([AS_BEFORE, fastest])
        }
        bar.advance(task)
    return ExtractionBench(
        device=device.type,
        threads=torch.get_num_threads(),
        decoding=decoding,
        ways=ways,
        writing=writing,
        together=together,
        flops=count_flops(encoder),
        matrix_rate={way.number_type: _matrix_rate(way, device) for way in (AS_BEFORE, Precision("bfloat16"))},
    )


def _rounds(
    encoder: ImageEncoder, images: ImageTable, way: Precision, rounds: int, batch_size: int, workers: int
) -> list[Round]:
    """The encoder alone over as many images as there are, then the whole extraction; again and again."""
    device, found = next(encoder.parameters()).device, []
    computing = encoder.with_precision(way)
    pixels = torch.stack([encoder.load(path).pixels_3SS for path in images.paths[:batch_size]]).to(device)
    computing(pixels).cpu()
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(max(1, len(images.ids) // len(pixels))):
            computing(pixels).cpu()
        alone = max(1, len(images.ids) // len(pixels)) * len(pixels) / (time.perf_counter() - begin)
        out = images.paths[0].with_name("together.h5")
        report = extract(images, encoder, out, precision=way, batch_size=batch_size, workers=workers)
        out.unlink()
        found.append(Round(alone, report.encoded / report.seconds, report))
    return found


def draw_photographs(folder: Path, count: int) -> ImageTable:
    """`count` different JPEG files of 640x480, about 100 kB each: soft shapes with noise."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 9, (HEIGHT, WIDTH, 3))
    paths = []
    for number in range(count):
        soft = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT))
        pixels = np.clip(np.asarray(soft) + np.roll(noise, number, axis=1), 0, 255).astype(np.uint8)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=85)
    return ImageTable(tuple(str(number) for number in range(count)), tuple(paths))


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


def _matrix_rate(way: Precision, device: torch.device) -> float:
    """FLOP/s of a product of two large square matrices, the best of some."""
    side = MATRIX_SIDE[device.type]
    left = torch.rand(side, side, device=device).to(way.dtype)
    out = torch.empty_like(left)
    seconds = []
    for _ in range(6):
        begin = time.perf_counter()
        torch.mm(left, left, out=out)
        float(out[0, 0])  # waits for a GPU
        seconds.append(time.perf_counter() - begin)
    return 2 * side**3 / min(seconds)


def bench_note(bench: ExtractionBench, images: int) -> str:
    """What was measured on what, and where the time of a whole extraction went."""
    lines = [
        f"{images:,} drawn JPEG images of {WIDTH}x{HEIGHT} on {bench.device}, torch {torch.__version__}, "
        f"{bench.threads} threads. Ratios of the whole are medians of rounds, each beside the encoder alone right "
        f"before it."
    ]
    lines += [f"{way}, last round: {rounds[-1].report.times()}" for way, rounds in bench.together.items()]
    if bench.device == "cpu":
        lines.append("Shared cores: what is left when decoding takes its processor time from the encoder's cores.")
    return "\n".join(lines)


def print_extraction_bench(
    name: str,
    *,
    layer: str | None = None,
    image_size: int = 224,
    images: int = 192,
    batch_size: int | None = None,
    workers: int = 2,
    scaled_decoding: bool = False,
    compiled: bool = True,
    json_file: Path | None = None,
    against: Path | None = None,
) -> None:
    """`vqa bench extract`: measure, print, keep and compare.

    Raises:
        InputError: when there is no such encoder or layer.
        SlowerError: a ratio fell below the stored one's part.
    """
    encoder = build_image_encoder(
        name, layer=layer, image_size=image_size, weights="random", scaled_decoding=scaled_decoding
    ).to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    at_once = images_at_once(image_size) if batch_size is None else batch_size
    bench = bench_extraction(encoder, images, batch_size=at_once, workers=workers, compiled=compiled)
    _print_problems(bench.ways)
    title = f"Extraction: {name} {encoder.layer} at {image_size} px"
    report = BenchReport(title, bench_note(bench, images), bench.figures(), bench.ratios())
    conclude(report, json_file=json_file, against=against)


def _print_problems(ways: Sequence[Measurement]) -> None:
    """What could not be measured, and what random weights mean for bfloat16."""
    for one in ways:
        if one.problem:
            console.print(f"{one.precision}: {one.problem}", markup=False)
        elif not one.agrees:
            console.print(
                f"{one.precision}: features differ from float32 (cosine {one.cosine:.3f}) with these random weights; "
                f"an extraction would not use it"
            )
