"""Where the features live while a model trains: on the device, in host memory, or on the disk.

A fusion that reads only the mean region of an image gets it ready: it is computed while the table is filled, and the
map is not held. One that reads nothing gets zeros.

Legend: `N` images of the table, `B` batch, `R` regions, `C` channels.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vqa.data.images import STATED
from vqa.errors import InputError, unknown_name
from vqa.features.cache.reader import FeatureCache, dequantise, different_places, dtype_name, identity
from vqa.features.tables.means import fill_means
from vqa.features.tables.prefetch import ahead, in_turn
from vqa.features.tables.residency import (
    HOST_SHARE,
    RESIDENCIES,
    Layout,
    Plan,
    Residency,
    SharedTable,
    choose_residency,
)
from vqa.features.tables.shared_memory import can_share, shared_rows, sole_visitor, table_file
from vqa.features.tables.stored_rows import MappedRows, MemoryRows, Rows, Source
from vqa.features.tables.where import boxes, masks, region_counts
from vqa.models.contracts import Image, Reads
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
        holds: "map", "mean" or "nothing": what is held of an image. Where `Fusion.reads` is less than the map, batches
            have one region, no mask and no boxes; but from the disk the map comes as it is.
        device: where `gather` puts its batches.
        dtype: of the batches.
        regions, channels: `R` and `C`.
        count_N: int64, how many regions of each image are real; None where all are, of every image.
        moments_2NC: float32, the means and, second, the variances within images, where both are held; else None.
        mask_NR: bool on the device, True on real regions; None where all are, of every image.
        box_NR4: float32 on the device, where each region lies; None where the caches do not say.
        row_bytes: of an image, as stored in the files.
        block_N: int64, which block of about `BLOCK_BYTES` of neighbours in the files each row belongs to.
    """

    residency: Residency
    reason: str
    holds: Reads
    device: torch.device
    dtype: torch.dtype
    regions: int
    channels: int
    count_N: Tensor | None
    moments_2NC: Tensor | None = None
    mask_NR: Tensor | None
    box_NR4: Tensor | None
    row_bytes: int
    block_N: Tensor

    @abstractmethod
    def __len__(self) -> int:
        """How many images the table has."""

    @property
    def batch_regions(self) -> int:
        """Regions of an image as it comes in a batch."""
        return self.regions if self.holds == "map" else 1

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
        *,
        reads: Reads = "map",
        variance: bool = False,
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
            reads: what the fusion takes of an image (`Fusion.reads`).
            variance: hold beside each mean how the image's regions vary about it, for statistics over all regions.

        Raises:
            InputError: when a cache lacks an image, when the caches contradict each other, or when the residency
                does not exist or does not fit.
        """
        if residency not in RESIDENCIES:
            raise InputError(unknown_name("residency", residency, RESIDENCIES))
        _require_agreement(caches)
        source, first, wanted = _locate(caches, image_ids), caches[0], dtype or torch.float16
        if reads == "nothing":
            table: FeatureTable = _Nothing()
            plan = Plan("device", wanted, "no features are held: the fusion reads none of the image")
        else:
            held: Reads = "map" if residency == "disk" or first.regions == 1 else reads
            layout = Layout.of(caches, len(image_ids), wanted, held, variance=variance)
            wanted_once = local_processes() > 1 if share is None else share
            shared = table_file(caches, source, layout.contents) if wanted_once and can_share() else None
            with ExitStack() as visit:
                if shared:
                    visit.enter_context(sole_visitor())
                plan = choose_residency(layout, device, residency, SharedTable(shared, layout.size, asked=wanted_once))
                if plan.shared is None:
                    visit.close()  # what is a process's own is read by all of them at a time
                table = _build(caches, source, layout, plan, device)
        table.residency, table.reason, table.device, table.dtype = plan.residency, plan.reason, device, wanted
        table.holds = "nothing" if reads == "nothing" else "map" if plan.residency == "disk" else held
        if table.holds != reads and first.regions > 1:
            table.reason += "; each batch has the whole maps, of which the fusion takes the mean"
        table.regions, table.channels, table.row_bytes = first.regions, first.channels, first.row_bytes
        table.count_N, table.mask_NR, table.box_NR4 = region_counts(caches, source), None, None
        if table.holds == "map":
            table.mask_NR, table.box_NR4 = masks(table.count_N, first.regions, device), boxes(caches, source, device)
        table.block_N = _file_place(source) // max(1, BLOCK_BYTES // first.row_bytes)
        return table


def _build(
    caches: Sequence[FeatureCache], source: Source, layout: Layout, plan: Plan, device: torch.device
) -> FeatureTable:
    """Bring the features to where the plan wants them."""
    on_gpu = plan.residency == "device" and device.type != "cpu"
    home = device if on_gpu else torch.device("cpu")
    kind = caches[0].dtype if plan.residency == "disk" else plan.dtype
    scale_N = _scales(caches, source, home) if kind == torch.int8 else None
    if plan.residency == "disk":
        return _InMainMemory(MappedRows(caches, source), scale_N)
    fill = partial(_fill_maps if layout.holds == "map" else fill_means, caches=caches, source=source)
    if plan.shared is not None:
        rows = shared_rows(plan.shared, layout.shape, plan.dtype, fill)
    else:
        # Not pinned even for a GPU: batches go through pinned buffers, and pinning would round it up to a power of two.
        rows = MemoryRows(torch.empty(layout.shape, dtype=plan.dtype, device=home))
        fill(rows.table_NRC)
    table = _OnGPU(rows, scale_N) if on_gpu else _InMainMemory(rows, scale_N)
    count = len(source.row_N)
    if len(rows) > count:
        table.moments_2NC = rows.table_NRC.view(2, count, -1)
    return table


class _Nothing(FeatureTable):
    """No features: every image is one region of zeros."""

    def __len__(self) -> int:
        return len(self.block_N)

    def gather(self, row_B: Tensor) -> Image:
        zero_11C = torch.zeros(1, 1, self.channels, dtype=self.dtype, device=self.device)
        return Image(zero_11C.expand(len(row_B), -1, -1))

    def stream(self, rows: Sequence[Tensor]) -> Iterator[Image]:
        return map(self.gather, rows)


class _OnGPU(FeatureTable):
    """The whole table on the device that computes."""

    def __init__(self, rows: MemoryRows, scale_N: Tensor | None) -> None:
        self.table_NRC, self.scale_N = rows.table_NRC, scale_N

    def __len__(self) -> int:
        return len(self.block_N)

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
        return len(self.block_N)

    def gather(self, row_B: Tensor) -> Image:
        row_B = row_B.cpu()
        shape = (len(row_B), self.batch_regions, self.channels)
        stored_BRC = torch.empty(shape, dtype=self.rows.dtype, pin_memory=self.device.type == "cuda")
        self.rows.expect(row_B)
        self.rows.read(row_B, stored_BRC)
        return self._image(self._computed(stored_BRC.to(self.device, non_blocking=True), row_B), row_B)

    def stream(self, rows: Sequence[Tensor]) -> Iterator[Image]:
        shape = (self.batch_regions, self.channels)
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


def _fill_maps(table_NRC: Tensor, caches: Sequence[FeatureCache], source: Source) -> None:
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
