"""Decoding, encoding and writing at the same time: threads that decode ahead, the encoder, a thread that writes.

Legend: `B` images of a block, `S` side of an image, `R` regions, `C` channels.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqa.errors import InputError
from vqa.features.cache.writer import LARGEST_HALF, CacheWriter
from vqa.features.encoders.image_encoder import ImageEncoder
from vqa.runtime.transfer import to_device

BLOCKS_AHEAD = 2  # blocks that are decoded while one is encoded; bounds the memory
BLOCKS_BEHIND = 2  # blocks that may wait to be written; bounds it too


@dataclass(frozen=True)
class Block:
    """Distinct files that are encoded together; `rows[i]` are the table's rows that show `paths[i]`."""

    paths: list[Path]
    rows: list[list[int]]


@dataclass
class Stages:
    """Where the time went, in seconds.

    Attributes:
        decoding: of the processor, in the decoding threads together.
        encoding: in the encoder.
        writing: in the thread that writes.
        waiting_for_images: the encoder had nothing to do.
        waiting_for_writer: the encoder was done and had to wait with the next block.
    """

    decoding: float = 0.0
    encoding: float = 0.0
    writing: float = 0.0
    waiting_for_images: float = 0.0
    waiting_for_writer: float = 0.0

    @property
    def bound(self) -> str:
        """The stage that the others wait for."""
        waits = {
            "decoding": self.waiting_for_images,
            "writing": self.waiting_for_writer,
            "the encoder": self.encoding,
        }
        return max(waits, key=waits.__getitem__)


class _ImageFacts(NamedTuple):
    """What a decoding thread found; the pixels are in the block."""

    digest: str
    seconds: float
    one_colour: bool
    size: tuple[int, int]


class _DecodeJob(NamedTuple):
    """A block whose images are being decoded into `pixels_BSS3`, by place in the block."""

    block: Block
    pixels_BSS3: Tensor
    futures: "dict[int, Future[_ImageFacts]]"


class _Encoded(NamedTuple):
    """What the encoder gave, on the CPU: features in the type to write, and the largest absolute value an image.

    Of a detector also which regions are real, and where they lie; else neither has a number.
    """

    feature_BRC: Tensor
    largest_B: Tensor
    count_B: Tensor
    box_BR4: Tensor


class _WriteJob(NamedTuple):
    """A block that is to be written.

    `digests` are those of all its images, by place; `sources` the rows that hold the features of those
    whose content came before; `features` waits for the encoder and gives those of the others.
    """

    block: Block
    digests: dict[int, str]
    sources: dict[int, int]
    features: Callable[[], _Encoded] | None


class Pipeline:
    """One pass over blocks of images, from files to rows of a cache.

    Attributes:
        stages: where the time went.
        unreadable: images that could not be decoded, with the reason.
        one_colour: images that came out (almost) one colour.
        encoded: images that went through the encoder.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        writer: CacheWriter,
        row_of_digest: dict[bytes, int],
        *,
        batch_size: int,
        workers: int,
        halved: bool = False,
    ) -> None:
        """Set up, without starting anything.

        Args:
            encoder: on the device to use.
            writer: the open cache.
            row_of_digest: which row holds the features of an image's content; added to.
            batch_size: the size of a whole block.
            workers: threads that decode.
            halved: the cache stores float16, so features come from the device in it.
        """
        self.encoder, self.writer, self.row_of_digest = encoder, writer, row_of_digest
        self.batch_size, self.workers, self.halved = batch_size, workers, halved
        self.device = next(encoder.parameters()).device
        self.stages, self.unreadable, self.encoded = Stages(), list[tuple[Path, str]](), 0
        self.one_colour = list[Path]()
        self._write_failed = False

    def run(self, blocks: Sequence[Block], note: Callable[[int], None]) -> None:
        """Encode what the cache lacks of every block; `note` is told how many rows each block brought.

        Raises:
            InputError: when the disk is full, or features do not fit float16. What was written before is kept.
        """
        decoders = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        writing = ThreadPoolExecutor(1, thread_name_prefix="write")
        waiting: deque[Future[None]] = deque()
        try:
            for decoding in self._decoded_ahead(blocks, decoders):
                encoded = self._encode(decoding)
                if encoded is not None:
                    waiting.append(writing.submit(self._write, encoded))
                begin = time.perf_counter()
                while len(waiting) > BLOCKS_BEHIND:
                    waiting.popleft().result()
                self.stages.waiting_for_writer += time.perf_counter() - begin
                note(sum(len(decoding.block.rows[place]) for place in decoding.futures))
        finally:
            decoders.shutdown(wait=False, cancel_futures=True)
            writing.shutdown(wait=True)
        for future in waiting:
            future.result()

    def _decoded_ahead(self, blocks: Sequence[Block], pool: ThreadPoolExecutor) -> Iterator[_DecodeJob]:
        """The blocks that lack something, being decoded."""
        queue: deque[_DecodeJob] = deque()
        side, pinned = self.encoder.image_size, self.device.type == "cuda"
        for block in blocks:
            lacking = [i for i, rows in enumerate(block.rows) if not self.writer.done_I[rows].all()]
            if not lacking:
                continue
            # Places without an image stay black: a batch's size and an image's place in it never change.
            size = self.batch_size if self.encoder.precision.compiled else len(block.paths)
            pixels_BSS3 = torch.zeros((size, side, side, 3), dtype=torch.uint8, pin_memory=pinned)
            into = pixels_BSS3.numpy()
            futures = {i: pool.submit(self._decode, block.paths[i], into[i]) for i in lacking}
            queue.append(_DecodeJob(block, pixels_BSS3, futures))
            if len(queue) > BLOCKS_AHEAD:
                yield queue.popleft()
        yield from queue

    def _decode(self, path: Path, into_SS3: NDArray[np.uint8]) -> _ImageFacts:
        """In a decoding thread: read one image into its place of a block."""
        begin = time.thread_time()
        image = self.encoder.load(path)
        into_SS3[:] = image.pixels_3SS.permute(1, 2, 0).numpy()
        return _ImageFacts(image.digest, time.thread_time() - begin, image.one_colour, image.size)

    def _encode(self, decoding: _DecodeJob) -> _WriteJob | None:
        """Wait for a block's images and start to encode it, if it holds content that is new."""
        begin = time.perf_counter()
        block, digests, sources = decoding.block, dict[int, str](), dict[int, int]()
        size_B2 = torch.ones(len(decoding.pixels_BSS3), 2)
        for place, future in decoding.futures.items():
            try:
                decoded = future.result()
            except InputError as error:
                self.unreadable.append((block.paths[place], str(error)))
                continue
            self.stages.decoding += decoded.seconds
            digests[place], size_B2[place] = decoded.digest, torch.tensor(decoded.size)
            if decoded.one_colour:
                self.one_colour.append(block.paths[place])
            first = self.row_of_digest.setdefault(bytes.fromhex(decoded.digest), block.rows[place][0])
            if first != block.rows[place][0]:
                sources[place] = first
        self.stages.waiting_for_images += time.perf_counter() - begin
        if not digests:
            return None
        new = len(digests) - len(sources)
        self.encoded += new
        return _WriteJob(block, digests, sources, self._features(decoding.pixels_BSS3, size_B2) if new else None)

    def _encoded(self, pixels_B3SS: Tensor, size_B2: Tensor) -> _Encoded:
        """Features and their largest values, on the device; what float16 cannot hold is seen before it is lost."""
        image = self.encoder.images(pixels_B3SS, size_B2)
        feature_BRC, nothing = image.regions_IRC, torch.empty(0)
        largest_B = feature_BRC.abs().flatten(1).amax(1)
        count_B = nothing if image.mask_IR is None else image.mask_IR.sum(dim=1)
        box_BR4 = nothing if image.boxes_IR4 is None else image.boxes_IR4
        return _Encoded(feature_BRC.half() if self.halved else feature_BRC, largest_B, count_B, box_BR4)

    def _features(self, pixels_BSS3: Tensor, size_B2: Tensor) -> Callable[[], _Encoded]:
        """Start the encoder; what is returned waits for it and gives the features on the CPU."""
        begin = time.perf_counter()
        pixels_B3SS = pixels_BSS3.permute(0, 3, 1, 2)
        if self.device.type != "cuda":
            encoded = self._encoded(pixels_B3SS.to(self.device), size_B2)
            on_cpu = _Encoded(*(values.cpu() for values in encoded))
            self.stages.encoding += time.perf_counter() - begin
            return lambda: on_cpu
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(self.device)
        started.record(stream)
        on_device = self._encoded(pixels_B3SS.to(self.device, non_blocking=True), to_device(size_B2, self.device))
        on_host = _Encoded(*(torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in on_device))
        for here, there in zip(on_host, on_device, strict=True):
            here.copy_(there, non_blocking=True)
        ended.record(stream)

        def wait() -> _Encoded:
            ended.synchronize()
            self.stages.encoding += started.elapsed_time(ended) / 1000
            return on_host

        return wait

    def _write(self, encoded: _WriteJob) -> None:
        """In the writing thread: write one block; now and then bring everything to the disk."""
        if self._write_failed:
            return  # the first failure is reported; a later block may be a copy of what could not be written
        self._write_failed = True
        block, digests, sources, features = encoded
        found = None if features is None else features()
        begin = time.perf_counter()
        if found is not None:
            new = [place for place in digests if place not in sources]
            self._check_range(found.largest_B, block.paths, new)
            places = [place for place in new for _ in block.rows[place]]
            rows = np.array([row for place in new for row in block.rows[place]], dtype=np.int64)
            where = (found.count_B[places], found.box_BR4[places]) if self.encoder.boxed else ()
            self.writer.write(rows, found.feature_BRC[places], [digests[place] for place in places], *where)
        for place, source in sources.items():
            self.writer.copy(source, block.rows[place], digests[place])
        self.writer.commit_if_due()
        self.stages.writing += time.perf_counter() - begin
        self._write_failed = False

    def _check_range(self, largest_B: Tensor, paths: list[Path], places: list[int]) -> None:
        """Refuse features that float16 cannot hold."""
        largest_N = largest_B[places]
        if not bool((largest_N <= LARGEST_HALF).all()):  # also False for NaN
            worst = int(torch.nonzero(~(largest_N <= LARGEST_HALF))[0])
            raise InputError(
                f"{paths[places[worst]]}: {self.encoder.name} {self.encoder.layer} gives {largest_N[worst].item():g}, "
                f"and float16 ends at {LARGEST_HALF:g}; are the weights ({self.encoder.weights_origin}) right for "
                f"this layer? Otherwise choose another layer."
            )
