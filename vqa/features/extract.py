"""Extraction: pictures through an encoder into a feature cache, resumable at any moment.

Pictures go through in blocks of `batch_size` distinct files, in the order of the table. A picture keeps its place in
its block whatever has been done before, because the arithmetic of a batch may depend on its size and on a
picture's place in it: so a run that was interrupted writes the same bytes as one that was not.

Legend: `B` pictures of a block, `S` side of a picture, `R` regions, `C` channels.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress, TaskID
from torch import Tensor

from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.features.cache import FeatureCache
from vqa.features.cache_writer import CacheWriter
from vqa.features.encoders import ImageEncoder
from vqa.features.pictures import Picture
from vqa.files import sha256_file
from vqa.progress import console, progress_bar

LARGEST_HALF = 65504.0  # the largest float16
COMMIT_SECONDS = 2.0  # at most this much work is lost by a crash
COMPARED = 32  # pictures that are compared with what was extracted before, when a run goes on
BLOCKS_AHEAD = 2  # blocks that are decoded while one is encoded; bounds the memory


@dataclass(frozen=True)
class ExtractReport:
    """What an extraction did.

    Attributes:
        images: rows of the cache.
        extracted_now: rows filled by this run.
        already_done: rows that an earlier run had filled.
        unreadable: pictures that could not be decoded, with the reason; their rows stay empty.
        seconds: wall clock of this run.
        decoding_wait: seconds in which the encoder waited for pictures.
        encoding: seconds in the encoder.
        writing: seconds in the file.
    """

    images: int
    extracted_now: int
    already_done: int
    unreadable: list[tuple[Path, str]]
    seconds: float
    decoding_wait: float
    encoding: float
    writing: float


@dataclass(frozen=True)
class _Block:
    """Distinct pictures that are encoded together; `rows[i]` are the table's rows that show `paths[i]`."""

    paths: list[Path]
    rows: list[list[int]]


def extract(
    images: ImageTable,
    encoder: ImageEncoder,
    out: Path,
    *,
    batch_size: int = 32,
    workers: int = 2,
    dtype: str = "float16",
    command: str = "",
) -> ExtractReport:
    """Encode every picture of the table that `out` does not hold yet.

    A file that several rows name is encoded once. Interrupting loses at most two seconds of work; the same call
    goes on. Runs with one batch size, machine and set of versions give byte-identical `/features`, interrupted or not.

    Args:
        images: the pictures, one row of the cache each.
        encoder: runs on the device its parameters are on.
        out: the cache, made or completed.
        batch_size: pictures encoded together.
        workers: threads that decode ahead.
        dtype: what is stored: "float16", or "int8" with one scale a picture (half the size).
        command: what the user ran; stated in the cache and in messages that say how to go on.

    Raises:
        InputError: when pictures are missing (before anything is computed), when `out` is another cache, in use or
            on a full disk, or when features do not fit float16.
    """
    begin = time.perf_counter()
    if batch_size < 1 or workers < 1:
        raise InputError(f"batch size {batch_size} and workers {workers} must be at least 1")
    if not images.ids:
        raise InputError(f"{out}: there are no pictures to extract")
    _require_files(images)
    attributes = encoder.attributes() | {
        "torch": str(torch.__version__),
        "torchvision": _torchvision_version(),
        "command": command,
    }
    with CacheWriter(out, images, attributes, encoder.regions, encoder.channels, dtype) as writer:
        already = int(writer.done_I.sum())
        _require_same_pictures(images, FeatureCache(out))
        run = _Run(encoder, writer)
        try:
            with progress_bar() as bar:
                task = bar.add_task("Extracting", total=len(images.ids), completed=already, note="")
                run.all_blocks(_blocks(images, batch_size), workers, bar, task)
        except KeyboardInterrupt:
            writer.commit()
            again = command or "the same command"
            console.print(
                f"Interrupted: {int(writer.done_I.sum()):,} of {len(images.ids):,} pictures are in {out}. "
                f"Go on with: {again}"
            )
            raise
        writer.commit()
        return ExtractReport(
            images=len(images.ids),
            extracted_now=int(writer.done_I.sum()) - already,
            already_done=already,
            unreadable=run.unreadable,
            seconds=time.perf_counter() - begin,
            decoding_wait=run.decoding_wait,
            encoding=run.encoding,
            writing=run.writing,
        )


class _Run:
    """One pass over the blocks, and what it cost."""

    def __init__(self, encoder: ImageEncoder, writer: CacheWriter) -> None:
        self.encoder, self.writer = encoder, writer
        self.device = next(encoder.parameters()).device
        self.unreadable: list[tuple[Path, str]] = []
        self.decoding_wait = self.encoding = self.writing = 0.0

    def all_blocks(self, blocks: Sequence[_Block], workers: int, bar: Progress, task: TaskID) -> None:
        """Encode every block that has something to do, decoding ahead of the encoder."""
        begin, last_commit, encoded = time.perf_counter(), time.perf_counter(), 0
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        try:
            for block, futures in self._decoded_ahead(blocks, pool):
                encoded += self._one_block(block, futures)
                now = time.perf_counter()
                if now - last_commit > COMMIT_SECONDS:
                    self.writer.commit()
                    last_commit = now
                rows = sum(len(block.rows[place]) for place in futures)
                bar.update(task, advance=rows, note=f"{encoded / (now - begin):.1f} pictures/s")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _decoded_ahead(
        self, blocks: Sequence[_Block], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[_Block, dict[int, "Future[Picture]"]]]:
        """Blocks with the pictures to encode, by place in the block, being decoded."""
        queue: deque[tuple[_Block, dict[int, Future[Picture]]]] = deque()
        for block in blocks:
            waiting = [i for i, rows in enumerate(block.rows) if not self.writer.done_I[rows].all()]
            if not waiting:
                continue
            queue.append((block, {i: pool.submit(self.encoder.load, block.paths[i]) for i in waiting}))
            if len(queue) > BLOCKS_AHEAD:
                yield queue.popleft()
        yield from queue

    def _one_block(self, block: _Block, futures: "dict[int, Future[Picture]]") -> int:
        """Decode, encode and write one block; returns how many pictures were encoded."""
        begin = time.perf_counter()
        side = self.encoder.image_size
        pixels_B3SS = torch.zeros((len(block.paths), 3, side, side), dtype=torch.uint8)
        digests: dict[int, str] = {}
        for place, future in futures.items():
            try:
                picture = future.result()
            except InputError as error:
                self.unreadable.append((block.paths[place], str(error)))
                continue
            pixels_B3SS[place], digests[place] = picture.pixels_3SS, picture.digest
        decoded = time.perf_counter()
        self.decoding_wait += decoded - begin
        if not digests:
            return 0
        feature_BRC = self.encoder(pixels_B3SS.to(self.device))
        self._check_range(feature_BRC, block.paths, list(digests))
        feature_BRC = feature_BRC.cpu()
        encoded = time.perf_counter()
        self.encoding += encoded - decoded
        places = [place for place in digests for _ in block.rows[place]]
        rows = np.array([row for place in digests for row in block.rows[place]], dtype=np.int64)
        self.writer.write(rows, feature_BRC[places], [digests[place] for place in places])
        self.writing += time.perf_counter() - encoded
        return len(digests)

    def _check_range(self, feature_BRC: Tensor, paths: list[Path], places: list[int]) -> None:
        """Refuse features that float16 cannot hold."""
        largest_N = feature_BRC[places].abs().flatten(1).amax(1)
        if not bool((largest_N <= LARGEST_HALF).all()):  # also False for NaN
            worst = int(torch.nonzero(~(largest_N <= LARGEST_HALF))[0])
            raise InputError(
                f"{paths[places[worst]]}: {self.encoder.name} {self.encoder.layer} gives {largest_N[worst].item():g}, "
                f"and float16 ends at {LARGEST_HALF:g}; are the weights ({self.encoder.weights_origin}) right for "
                f"this layer? Otherwise choose another layer."
            )


def _blocks(images: ImageTable, batch_size: int) -> list[_Block]:
    """The table's distinct files in order of first use, in blocks."""
    rows_of: dict[Path, list[int]] = {}
    for row, path in enumerate(images.paths):
        rows_of.setdefault(path, []).append(row)
    paths = list(rows_of)
    return [
        _Block(paths[i : i + batch_size], [rows_of[path] for path in paths[i : i + batch_size]])
        for i in range(0, len(paths), batch_size)
    ]


def _require_same_pictures(images: ImageTable, cache: FeatureCache) -> None:
    """Compare some of the pictures that are done with their digests: a set drawn or downloaded anew is found out."""
    done = np.flatnonzero(cache.done_I)
    sample = np.random.default_rng(0).permutation(done)[:COMPARED]
    changed = [row for row in sample.tolist() if sha256_file(images.paths[row]) != cache.image_digests[row]]
    if changed:
        raise InputError(
            f"{cache.path}: holds the features of other pictures: {len(changed)} of {len(sample)} compared have "
            f"changed since, first {images.paths[changed[0]]}. Remove the cache, or choose another --out."
        )


def _require_files(images: ImageTable) -> None:
    """Stop before any work when pictures are not where they should be."""
    missing = [path for path in dict.fromkeys(images.paths) if not path.is_file()]
    if missing:
        first = "\n".join(f"  {path}" for path in missing[:5])
        raise InputError(f"{len(missing):,} of {len(images.ids):,} pictures are missing, first:\n{first}")


def _torchvision_version() -> str:
    import torchvision

    return str(torchvision.__version__)
