"""Where the features live while a model trains: on the device, in host memory, or on the disk.

Legend: `N` images of the table, `B` batch, `R` regions, `C` channels.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor

from vqa.data.images import STATED
from vqa.errors import InputError, unknown_name
from vqa.features.cache.reader import FeatureCache, dequantise, different_places, dtype_name, identity
from vqa.features.tables.prefetch import ahead, in_turn
from vqa.features.tables.residency import HOST_SHARE, RESIDENCIES, Plan, Residency, SharedTable, choose_residency
from vqa.features.tables.shared_memory import can_share, shared_rows, sole_visitor, table_file
from vqa.features.tables.stored_rows import MappedRows, MemoryRows, Rows, Source
from vqa.features.tables.where import boxes, masks
from vqa.models.contracts import Image
from vqa.runtime.distributed import local_processes
from vqa.runtime.memory import total_memory
from vqa.runtime.transfer import to_device

BLOCK_BYTES = 16 << 20  # long enough that finding it costs a disk little beside reading it


class FeatureTable(ABC):
    """Features of some images, ready for batches; row `i` belongs to the `i`-th image that was asked for.

    Build with `FeatureTable.load`. Every residency gives bit-identical batches.

    Attributes:
        residency: where the features are.
        reason: why, with sizes, one sentence to print.
        device: where `gather` puts its batches.
        dtype: of the batches.
        regions, channels: `R` and `C`.
        mask_NR: bool on the device, True on real regions; None where all are, of every image.
        box_NR4: float32 on the device, where each region lies; None where the caches do not say.
        row_bytes: of an image, as stored in the files.
        block_N: int64, which block of about `BLOCK_BYTES` of neighbours in the files each row belongs to.
    """

    residency: Residency
    reason: str
    device: torch.device
    dtype: torch.dtype
    regions: int
    channels: int
    mask_NR: Tensor | None
    box_NR4: Tensor | None
    row_bytes: int
    block_N: Tensor

    @abstractmethod
    def __len__(self) -> int:
        """How many images the table has."""

    @abstractmethod
    def gather(self, row_B: Tensor) -> Image:
        """The images of a batch: features `[B, R, C]` in `dtype` on `device`, masks and boxes there, too.

        Args:
            row_B: int64 rows of the table, best on the CPU: reading them back from a GPU costs a wait.
        """

    @abstractmethod
    def stream(self, rows: Sequence[Tensor]) -> Iterator[Image]:
        """One batch after another as `gather` gives them, the next one fetched while this one is computed with.

        A batch is valid until the next one is asked for: its memory is used again.

        Args:
            rows: int64 on the CPU, the rows of each batch.
        """

    def _image(self, regions_BRC: Tensor, row_B: Tensor) -> Image:
        """The features of some rows with their masks and boxes."""
        if self.mask_NR is None and self.box_NR4 is None:
            return Image(regions_BRC)
        row_B = to_device(row_B, self.device)
        mask_BR, box_BR4 = (
            None if of_all is None else of_all.index_select(0, row_B) for of_all in (self.mask_NR, self.box_NR4)
        )
        return Image(regions_BRC, None, mask_BR, box_BR4)

    @staticmethod
    def load(
        caches: Sequence[FeatureCache],
        image_ids: Sequence[str],
        device: torch.device,
        residency: str = "auto",
        dtype: torch.dtype | None = None,
        share: bool | None = None,
    ) -> "FeatureTable":
        """Take the images' features from one or more caches, reading each file once.

        Args:
            caches: searched in this order for each image.
            image_ids: one a row of the table.
            device: where batches are wanted.
            residency: "device", "host", "disk", or "auto": the first of them that fits (on a CPU "host" and
                "device" are the same memory).
            dtype: the type of the batches, by default float16. The table is converted once where that takes no more
                memory than what is stored, otherwise each batch is.
            share: whether main memory holds one table for all processes of the machine; None: under torchrun.

        Raises:
            InputError: when a cache lacks an image, when the caches contradict each other, or when the residency
                does not exist or does not fit.
        """
        if residency not in RESIDENCIES:
            raise InputError(unknown_name("residency", residency, RESIDENCIES))
        _require_agreement(caches)
        source = _locate(caches, image_ids)
        first = caches[0]
        wanted = dtype or torch.float16
        # Converted once where that takes no more memory; a wider type is made of each batch, which costs a step little.
        kind = wanted if wanted.itemsize <= first.dtype.itemsize else first.dtype
        size = len(image_ids) * first.regions * first.channels * kind.itemsize
        wanted_once = local_processes() > 1 if share is None else share
        shared = table_file(caches, source, kind) if wanted_once and can_share() else None
        with ExitStack() as visit:
            if shared:
                visit.enter_context(sole_visitor())
            plan = choose_residency(size, kind, device, residency, SharedTable(shared, size, asked=wanted_once))
            if plan.shared is None:
                visit.close()  # what is a process's own is read by all of them at a time
            table = _build(caches, source, plan, device)
        table.residency, table.reason, table.device, table.dtype = plan.residency, plan.reason, device, wanted
        table.regions, table.channels, table.row_bytes = first.regions, first.channels, first.row_bytes
        table.mask_NR, table.box_NR4 = masks(caches, source, device), boxes(caches, source, device)
        table.block_N = _file_place(source) // max(1, BLOCK_BYTES // first.row_bytes)
        return table


def _build(caches: Sequence[FeatureCache], source: Source, plan: Plan, device: torch.device) -> FeatureTable:
    """Bring the features to where the plan wants them."""
    on_gpu = plan.residency == "device" and device.type != "cpu"
    scale_N = _scales(caches, source, device if on_gpu else torch.device("cpu")) if plan.dtype == torch.int8 else None
    if plan.residency == "disk":
        return _InMainMemory(MappedRows(caches, source), scale_N)
    shape = (len(source.row_N), caches[0].regions, caches[0].channels)
    if plan.shared is not None:
        return _InMainMemory(
            shared_rows(plan.shared, shape, plan.dtype, lambda table_NRC: _fill(table_NRC, caches, source)), scale_N
        )
    # Not pinned even for a GPU: batches go through pinned buffers, and pinning would round it up to a power of two.
    table_NRC = torch.empty(shape, dtype=plan.dtype, device=device if on_gpu else "cpu")
    _fill(table_NRC, caches, source)
    return _OnGPU(table_NRC, scale_N) if on_gpu else _InMainMemory(MemoryRows(table_NRC), scale_N)


class _OnGPU(FeatureTable):
    """The whole table on the device that computes."""

    def __init__(self, table_NRC: Tensor, scale_N: Tensor | None) -> None:
        self.table_NRC, self.scale_N = table_NRC, scale_N

    def __len__(self) -> int:
        return len(self.table_NRC)

    def gather(self, row_B: Tensor) -> Image:
        row_B = to_device(row_B, self.device)
        stored_BRC = self.table_NRC.index_select(0, row_B)
        if self.scale_N is None:
            return self._image(stored_BRC.to(self.dtype), row_B)
        return self._image(dequantise(stored_BRC, self.scale_N.index_select(0, row_B), self.dtype), row_B)

    def stream(self, rows: Sequence[Tensor]) -> Iterator[Image]:
        if rows:  # one copy for all of them, so that no batch waits for its row numbers
            rows_N = to_device(torch.cat(list(rows)), self.device)
            yield from map(self.gather, rows_N.split([len(row_B) for row_B in rows]))


class _InMainMemory(FeatureTable):
    """A tensor in main memory, or the files mapped; batches are copied to the device."""

    def __init__(self, rows: Rows, scale_N: Tensor | None) -> None:
        self.rows, self.scale_N = rows, scale_N

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, row_B: Tensor) -> Image:
        row_B = row_B.cpu()
        shape = (len(row_B), self.regions, self.channels)
        stored_BRC = torch.empty(shape, dtype=self.rows.dtype, pin_memory=self.device.type == "cuda")
        self.rows.expect(row_B)
        self.rows.read(row_B, stored_BRC)
        return self._image(self._computed(stored_BRC.to(self.device, non_blocking=True), row_B), row_B)

    def stream(self, rows: Sequence[Tensor]) -> Iterator[Image]:
        shape = (self.regions, self.channels)
        if self.residency == "disk" or self.device.type == "cuda":
            stored = ahead(self.rows, rows, shape, self.device)
        else:  # a thread would only take the processor from the model
            stored = in_turn(self.rows, rows, shape)
        out_BRC = None
        if self.device.type == "cpu" and self.scale_N is None and self.dtype != self.rows.dtype:
            with torch.inference_mode(False):
                out_BRC = torch.empty((max(map(len, rows), default=0), *shape), dtype=self.dtype)
        for row_B, stored_BRC in zip(rows, stored, strict=True):
            computed_BRC = self._computed(stored_BRC, row_B, None if out_BRC is None else out_BRC[: len(row_B)])
            yield self._image(computed_BRC, row_B)

    def _computed(self, stored_BRC: Tensor, row_B: Tensor, out_BRC: Tensor | None = None) -> Tensor:
        """In the type of the batches; in `out_BRC` where that is given."""
        if out_BRC is not None:
            return out_BRC.copy_(stored_BRC)
        if self.scale_N is None:
            return stored_BRC.to(self.dtype)
        return dequantise(stored_BRC, to_device(self.scale_N[row_B], self.device), self.dtype)


def _fill(table_NRC: Tensor, caches: Sequence[FeatureCache], source: Source) -> None:
    """Read every row of a table from its cache, each file from front to back."""
    for number, cache in enumerate(caches):
        place_N = np.flatnonzero(source.cache_N == number)
        cache.read_into(source.row_N[place_N], place_N, table_NRC)


def _file_place(source: Source) -> Tensor:
    """For each row how many rows of the table lie before it in the files, int64."""
    order_N = np.lexsort((source.row_N, source.cache_N))
    place_N = np.empty(len(order_N), dtype=np.int64)
    place_N[order_N] = np.arange(len(order_N))
    return torch.from_numpy(place_N)


def _scales(caches: Sequence[FeatureCache], source: Source, device: torch.device) -> Tensor:
    """The int8 scale of each row of a table: float32 `[N]`."""
    scale_N = torch.empty(len(source.row_N))
    for number, cache in enumerate(caches):
        here_N = torch.from_numpy(source.cache_N == number)
        if cache.scale_I is not None:
            scale_N[here_N] = cache.scale_I[torch.from_numpy(source.row_N)[here_N]]
    return scale_N.to(device)


def _require_agreement(caches: Sequence[FeatureCache]) -> None:
    """Features of different encoders must never be mixed."""
    if not caches:
        raise InputError("no feature cache was given")
    first = caches[0]
    for other in caches[1:]:
        wrong = other.contradictions(identity(first.attributes))
        if (other.regions, other.channels, other.dtype) != (first.regions, first.channels, first.dtype):
            wrong.append(f"{other.path}: holds {_shape(other)}, expected {_shape(first)}")
        wrong += different_places(other, first)
        if wrong:
            stated = [cache.attributes["preprocessing"] for cache in (first, other)]
            decoded_otherwise = any(stated[0].get(key) != stated[1].get(key) for key in STATED)
            remedy = f"; extract it with --range {first.path}" if decoded_otherwise else ""
            raise InputError("\n".join([*wrong, f"It must agree with {first.path} to be used beside it{remedy}."]))


def _shape(cache: FeatureCache) -> str:
    return f"{cache.regions} x {cache.channels} {dtype_name(cache.dtype)}"


def _locate(caches: Sequence[FeatureCache], image_ids: Sequence[str]) -> Source:
    """The first cache that has each image; raises InputError naming the images that none has."""
    cache_N = np.full(len(image_ids), -1, dtype=np.int64)
    row_N = np.full(len(image_ids), -1, dtype=np.int64)
    for number, cache in enumerate(caches):
        open_N = np.flatnonzero(cache_N < 0)
        found_N = cache.find([image_ids[i] for i in open_N.tolist()])
        cache_N[open_N[found_N >= 0]] = number
        row_N[open_N] = found_N
    lacking = [image_ids[i] for i in np.flatnonzero(cache_N < 0).tolist()]
    if lacking and len(caches) == 1:
        caches[0].rows(image_ids)
    if lacking:
        files = "\n".join(f"  {cache.path}: {cache.completing_command}" for cache in caches)
        raise InputError(
            f"{len(lacking):,} of {len(image_ids):,} images are in none of the feature caches, first: "
            f"{', '.join(lacking[:5])}\nThe caches and the commands that complete them:\n{files}"
        )
    return Source(cache_N, row_N)


def too_large_for_memory(table: FeatureTable) -> bool:
    """Whether a table is on the disk and its files cannot all stay in main memory, however often they are read."""
    return table.residency == "disk" and len(table) * table.row_bytes > HOST_SHARE * total_memory()
