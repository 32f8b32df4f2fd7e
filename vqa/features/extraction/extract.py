"""Extraction: images through an encoder into a feature cache, resumable at any moment.

Images go through in blocks of `batch_size` distinct files, in the order of the table. An image keeps its place in
its block whatever has been done before, because what a batch comes to may depend on its size and on an
image's place in it: so a run that was interrupted writes the same bytes as one that was not. Of files with the same
content only the first is encoded.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision

from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache
from vqa.features.cache.writer import WHERE, CacheWriter, require_room_for_geometry
from vqa.features.encoders.image_encoder import WITH_GEOMETRY, ImageEncoder, fastest_convolutions
from vqa.features.encoders.preprocessing import require_files
from vqa.features.extraction.pipeline import Block, Pipeline, Stages
from vqa.features.precision import AS_BEFORE, STATED_AS, Precision
from vqa.files import sha256_file
from vqa.progress import progress_bar

MOST_AT_ONCE = 32  # images of a batch unless asked for: up to 224 px all of them, of larger ones as many pixels
BATCH_SIZE = "batch_size"  # the attribute of a cache that says how many images were encoded together when it was begun
IMAGES_COMPARED = 32  # that are compared with what was extracted before, when a run goes on


@dataclass(frozen=True)
class ExtractReport:
    """What an extraction did.

    Attributes:
        images: rows of the cache.
        extracted_now: rows filled by this run.
        already_done: rows that an earlier run had filled.
        encoded: images of different content that this run sent through the encoder.
        unreadable: images that could not be decoded, with the reason; their rows stay empty.
        seconds: wall clock of this run.
        workers: threads that decoded.
        stages: where the time went.
        one_colour: images that came out (almost) one colour.
    """

    images: int
    extracted_now: int
    already_done: int
    encoded: int
    unreadable: list[tuple[Path, str]]
    seconds: float
    workers: int
    stages: Stages
    one_colour: tuple[Path, ...] = ()

    @classmethod
    def nothing(cls) -> "ExtractReport":
        """Of a process that had nothing to do."""
        return cls(0, 0, 0, 0, [], 0.0, 1, Stages())

    def times(self) -> str:
        """One sentence: each stage's time and share, and which stage is the bound."""
        stages, whole = self.stages, max(self.seconds, 1e-9)
        decoding = stages.decoding / self.workers / whole
        shares = [
            f"decoding {stages.decoding:.1f} s on {self.workers} threads ({decoding:.0%})",
            f"encoder {stages.encoding:.1f} s ({stages.encoding / whole:.0%})",
            f"writing {stages.writing:.1f} s ({stages.writing / whole:.0%})",
        ]
        return f"{self.seconds:.1f} s: {', '.join(shares)}; the bound is {stages.bound}"


def extract(
    images: ImageTable,
    encoder: ImageEncoder,
    out: Path,
    *,
    precision: Precision = AS_BEFORE,
    batch_size: int = 32,
    workers: int = 2,
    dtype: str = "float16",
    command: str = "",
) -> ExtractReport:
    """Encode every image of the table that `out` does not hold yet.

    A content that several files or rows hold is encoded once. Interrupting loses at most two seconds of work; the
    same call goes on. Runs with one batch size, precision, machine, number of threads and set of versions give
    byte-identical `/features`, interrupted or not; on a GPU up to last digits (`fastest_convolutions`).

    Args:
        images: the images, one row of the cache each.
        encoder: runs on the device its parameters are on.
        out: the cache, made or completed.
        precision: how the encoder computes; a cache is completed as it was begun.
        batch_size: images encoded together.
        workers: threads that decode ahead.
        dtype: what is stored: "float16", or "int8" with one scale an image (half the size).
        command: what the user ran; stated in the cache and in messages that say how to go on.

    Raises:
        InputError: when images are missing (before anything is computed), when `out` is another cache, in use or
            on a full disk, when features do not fit float16, or for int8 with box geometry.
    """
    begin = time.perf_counter()
    if batch_size < 1 or workers < 1:
        raise InputError(f"batch size {batch_size} and workers {workers} must be at least 1")
    require_room_for_geometry(dtype, encoder.layer.endswith(WITH_GEOMETRY))
    if not images.ids:
        raise InputError(f"{out}: there are no images to extract")
    require_files(images)
    made = {STATED_AS: str(precision), "torch": str(torch.__version__), "torchvision": str(torchvision.__version__)}
    attributes = encoder.attributes() | made | {"command": command, BATCH_SIZE: batch_size}
    where, shape = WHERE if encoder.boxed else (), (encoder.regions, encoder.channels)
    with CacheWriter(out, images, attributes, *shape, dtype, where=where) as writer:
        already = int(writer.done_I.sum())
        rows = _require_same_images(images, FeatureCache(out))
        encoder = encoder.with_precision(precision)
        halved = dtype == "float16"
        pipeline = Pipeline(encoder, writer, rows, batch_size=batch_size, workers=workers, halved=halved)
        with writer.interruptible(command), fastest_convolutions():
            _run(pipeline, image_blocks(images, batch_size), len(images.ids), already)
        writer.commit()
        return ExtractReport(
            images=len(images.ids),
            extracted_now=int(writer.done_I.sum()) - already,
            already_done=already,
            encoded=pipeline.encoded,
            unreadable=pipeline.unreadable,
            seconds=time.perf_counter() - begin,
            workers=workers,
            stages=pipeline.stages,
            one_colour=tuple(pipeline.one_colour),
        )


def _run(pipeline: Pipeline, blocks: list[Block], images: int, already: int) -> None:
    """All blocks, behind a progress bar."""
    begin = time.perf_counter()
    with progress_bar() as bar:
        task = bar.add_task("Extracting", total=images, completed=already, note="")

        def note(rows: int) -> None:
            rate = pipeline.encoded / (time.perf_counter() - begin)
            bar.update(task, advance=rows, note=f"{rate:.1f} images/s")

        pipeline.run(blocks, note)


def images_at_once(image_size: int) -> int:
    """The default batch on a CPU: as many pixels whatever the images' size, because activations grow with them.

    >>> images_at_once(64), images_at_once(224), images_at_once(448), images_at_once(2000)
    (32, 32, 8, 1)
    """
    return min(MOST_AT_ONCE, max(1, MOST_AT_ONCE * 224**2 // image_size**2))


def image_blocks(images: ImageTable, batch_size: int) -> list[Block]:
    """The table's distinct files in order of first use, in blocks."""
    rows_of: dict[Path, list[int]] = {}
    for row, path in enumerate(images.paths):
        rows_of.setdefault(path, []).append(row)
    paths = list(rows_of)
    return [
        Block(paths[i : i + batch_size], [rows_of[path] for path in paths[i : i + batch_size]])
        for i in range(0, len(paths), batch_size)
    ]


def _require_same_images(images: ImageTable, cache: FeatureCache) -> dict[bytes, int]:
    """The row of each content that is done, by its digest.

    Some of the images are compared with their digests, so that a set generated or downloaded anew is found out.
    """
    done = np.flatnonzero(cache.done_I)
    sample = np.random.default_rng(0).permutation(done)[:IMAGES_COMPARED]
    changed = [row for row in sample.tolist() if sha256_file(images.paths[row]) != cache.image_digests[row]]
    if changed:
        raise InputError(
            f"{cache.path}: holds the features of other images: {len(changed)} of {len(sample)} compared have "
            f"changed since, first {images.paths[changed[0]]}. Remove the cache, or choose another --out."
        )
    rows: dict[bytes, int] = {}
    for row in done.tolist():
        rows.setdefault(bytes.fromhex(cache.image_digests[row]), row)
    return rows
