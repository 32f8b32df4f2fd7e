"""Where a table of features goes: to the device, to main memory (one copy for all processes), or it stays on disk."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache, dtype_name
from vqa.features.tables.shared_memory import room_for
from vqa.models.contracts import Reads
from vqa.runtime.distributed import local_processes
from vqa.runtime.memory import available_memory

Residency = Literal["device", "host", "disk"]
RESIDENCIES = ("auto", "device", "host", "disk")
DEVICE_SHARE = 0.6  # of the free device memory; the rest is for the model, its optimiser and its activations
HOST_SHARE = 0.8  # of the free main memory


class Layout(NamedTuple):
    """What a table holds of its images.

    Attributes:
        holds: their maps, or their means.
        shape: rows, regions and channels.
        dtype: of its numbers.
        each: what stands for one image, in words.
        map_size: of the maps in bytes, as they are stored.
    """

    holds: Reads
    shape: tuple[int, int, int]
    dtype: torch.dtype
    each: str
    map_size: int

    @classmethod
    def of(
        cls, caches: Sequence[FeatureCache], images: int, wanted: torch.dtype, holds: Reads, *, variance: bool = False
    ) -> "Layout":
        """A table of so many images.

        Args:
            wanted: the type of the batches.
            variance: beside each mean the variance of the image's regions.
        """
        first = caches[0]
        # Converted once where that takes no more memory; a wider type is made of each batch, which costs a step little.
        kind = wanted if wanted.itemsize <= first.dtype.itemsize else first.dtype
        shape = (images, first.regions, first.channels)
        map_size = math.prod(shape) * kind.itemsize
        if holds == "map":
            return cls(holds, shape, kind, "features", map_size)
        each = f"the mean{' and variance' if variance else ''} of each image's {first.regions} regions"
        return cls(holds, (images * (1 + variance), 1, first.channels), torch.float32, each, map_size)

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def contents(self) -> str:
        """What tells it from another table of the same images."""
        return f"{self.dtype} {self.each}"


class SharedTable:
    """How the processes of this machine come by their table in main memory."""

    def __init__(self, file: Path | None, size: int, *, asked: bool) -> None:
        """Look whether the table is there already, and whether there is room for it."""
        refused = "as asked" if not asked else "no shared memory" if file is None else room_for(file, size)
        self.file = None if refused else file
        self.there = self.file is not None and self.file.exists()
        self.copies = local_processes() if refused else 1
        self.clause = ", one copy for all processes"
        if refused:
            self.clause = f" for each of {self.copies} processes ({refused})" if self.copies > 1 else ""


class Plan(NamedTuple):
    """Where a table goes, in which type, and why."""

    residency: Residency
    dtype: torch.dtype
    reason: str
    shared: Path | None = None


def choose_residency(layout: Layout, device: torch.device, residency: str, sharing: SharedTable) -> Plan:
    """Choose where a table goes, from what is free now.

    Args:
        layout: what it holds.
        device: where batches are wanted.
        residency: one of `RESIDENCIES`.
        sharing: how it would lie in main memory.

    Raises:
        InputError: it does not fit where it is asked for.
    """
    size, kind = layout.size, layout.dtype
    free_host = available_memory() + (size if sharing.there else 0)
    on_cpu = device.type != "cuda"
    options: list[tuple[Residency, str, int, float]] = []
    if not on_cpu:
        options.append(("device", str(device), torch.cuda.mem_get_info(device)[0], DEVICE_SHARE))
    elif residency == "device":
        options.append(("device", "main memory", free_host, HOST_SHARE))
    options.append(("host", "main memory", free_host, HOST_SHARE))
    for name, where, free, share in options:
        in_main = where == "main memory"
        needed = size * sharing.copies if in_main else size
        if residency not in ("auto", name):
            continue
        if needed <= free * share:
            clause = sharing.clause if in_main else ""
            reason = (
                f"{layout.each} in {where}: {_gigabytes(size)} as {dtype_name(kind)}{clause}, {_gigabytes(free)} free"
            )
            return Plan(name, kind, reason, sharing.file if in_main else None)
        if residency == name:
            raise InputError(
                f"residency: {name} needs {_gigabytes(needed)}{sharing.clause if in_main else ''}, but {where} has "
                f"{_gigabytes(free)} free, of which {share:.0%} may be used; take residency: auto or disk"
            )
    return Plan("disk", kind, _disk_reason(residency, layout.map_size, free_host))


def _disk_reason(residency: str, stored: int, free: int) -> str:
    why = "as asked" if residency == "disk" else "too large to be held whole"
    return f"features read from the disk, {why}: {_gigabytes(stored)}, {_gigabytes(free)} of main memory free"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
