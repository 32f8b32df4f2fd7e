"""Where the features live while a model trains: on the device, in host memory, or on the disk.

Legend: `N` pictures of the table, `B` batch, `R` regions, `C` channels.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqa.errors import InputError, unknown_name
from vqa.features.cache import IDENTITY, FeatureCache, dequantise

Residency = Literal["device", "host", "disk"]
RESIDENCIES = ("auto", "device", "host", "disk")
DEVICE_SHARE = 0.6  # of the free device memory; the rest is for the model, its optimiser and its activations
HOST_SHARE = 0.8  # of the free main memory


class FeatureTable(ABC):
    """Features of some pictures, ready for batches; row `i` belongs to the `i`-th picture that was asked for.

    Build with `FeatureTable.load`. Every residency gives bit-identical batches.

    Attributes:
        residency: where the features are.
        reason: why, with sizes, one sentence to print.
        device: where `gather` puts its batches.
        dtype: of the batches.
        regions, channels: `R` and `C`.
    """

    residency: Residency
    reason: str
    device: torch.device
    dtype: torch.dtype
    regions: int
    channels: int

    @abstractmethod
    def __len__(self) -> int:
        """How many pictures the table has."""

    @abstractmethod
    def gather(self, row_B: Tensor) -> Tensor:
        """The features of a batch: `[B, R, C]` in `dtype` on `device`.

        Args:
            row_B: int64 rows of the table. On `device` for residency "device"; on the CPU otherwise, where rows on
                the device are accepted too but cost a wait.
        """

    @staticmethod
    def load(
        caches: Sequence[FeatureCache],
        image_ids: Sequence[str],
        device: torch.device,
        residency: str = "auto",
        dtype: torch.dtype | None = None,
    ) -> "FeatureTable":
        """Take the pictures' features from one or more caches, reading each file once.

        Args:
            caches: searched in this order for each picture.
            image_ids: one a row of the table.
            device: where batches are wanted.
            residency: "device", "host", "disk", or "auto": the first of them that fits (on a CPU "host" and
                "device" are the same memory).
            dtype: the type of the batches, by default float16. The table is converted once when that fits,
                otherwise each batch is.

        Raises:
            InputError: when a cache lacks a picture, when the caches contradict each other, or when the residency
                does not exist or does not fit.
        """
        if residency not in RESIDENCIES:
            raise InputError(unknown_name("residency", residency, RESIDENCIES))
        _require_agreement(caches)
        source = _locate(caches, image_ids)
        first = caches[0]
        wanted = dtype or torch.float16
        plan = _plan(len(image_ids) * first.regions * first.channels, first.dtype, wanted, device, residency)
        table: FeatureTable
        if plan.residency == "disk":
            table = _OnDisk(caches, source)
        else:
            table = _InMemory(caches, source, device, plan)
        table.residency, table.reason, table.device, table.dtype = plan.residency, plan.reason, device, wanted
        table.regions, table.channels = first.regions, first.channels
        return table


class _Source(NamedTuple):
    """Where each row of a table comes from."""

    cache_N: NDArray[np.int64]
    row_N: NDArray[np.int64]


class _Plan(NamedTuple):
    """Where a table goes, in which type, and why."""

    residency: Residency
    dtype: torch.dtype
    reason: str


class _InMemory(FeatureTable):
    """The whole table as one tensor, on the device or in (pinned) main memory."""

    def __init__(self, caches: Sequence[FeatureCache], source: _Source, device: torch.device, plan: _Plan) -> None:
        on_device = plan.residency == "device" and device.type != "cpu"
        self.pinned = plan.residency == "host" and device.type == "cuda"
        shape = (len(source.row_N), caches[0].regions, caches[0].channels)
        self.table_NRC = torch.empty(
            shape, dtype=plan.dtype, device=device if on_device else "cpu", pin_memory=self.pinned
        )
        for number, cache in enumerate(caches):
            place_N = np.flatnonzero(source.cache_N == number)
            cache.read_into(source.row_N[place_N], place_N, self.table_NRC)
        self.scale_N = _scales(caches, source, self.table_NRC.device) if plan.dtype == torch.int8 else None

    def __len__(self) -> int:
        return len(self.table_NRC)

    def gather(self, row_B: Tensor) -> Tensor:
        table = self.table_NRC
        row_B = row_B.to(table.device)
        batch_BRC = torch.empty(
            (len(row_B), *table.shape[1:]), dtype=table.dtype, device=table.device, pin_memory=self.pinned
        )
        torch.index_select(table, 0, row_B, out=batch_BRC)
        batch_BRC = batch_BRC.to(self.device, non_blocking=True)
        if self.scale_N is None:
            return batch_BRC.to(self.dtype)
        return dequantise(batch_BRC, self.scale_N[row_B].to(self.device), self.dtype)


class _OnDisk(FeatureTable):
    """The files themselves, memory-mapped; the operating system keeps in memory what fits."""

    def __init__(self, caches: Sequence[FeatureCache], source: _Source) -> None:
        self.maps = [cache.memory_map() for cache in caches]
        self.source = source
        self.scale_N = _scales(caches, source, torch.device("cpu")) if caches[0].dtype == torch.int8 else None

    def __len__(self) -> int:
        return len(self.source.row_N)

    def gather(self, row_B: Tensor) -> Tensor:
        wanted_B = row_B.cpu().numpy()
        cache_B, row_in_cache_B = self.source.cache_N[wanted_B], self.source.row_N[wanted_B]
        batch_BRC = np.empty((len(wanted_B), *self.maps[0].shape[1:]), dtype=self.maps[0].dtype)
        for number, features_IRC in enumerate(self.maps):
            place = np.flatnonzero(cache_B == number)
            # In the file's order, so that the disk reads forwards.
            place = place[np.argsort(row_in_cache_B[place], kind="stable")]
            batch_BRC[place] = features_IRC[row_in_cache_B[place]]
        stored_BRC = torch.from_numpy(batch_BRC).to(self.device)
        if self.scale_N is None:
            return stored_BRC.to(self.dtype)
        return dequantise(stored_BRC, self.scale_N[row_B.cpu()].to(self.device), self.dtype)


def _scales(caches: Sequence[FeatureCache], source: _Source, device: torch.device) -> Tensor:
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
        wrong = other.contradictions({key: first.attributes.get(key) for key in IDENTITY})
        if (other.regions, other.channels, other.dtype) != (first.regions, first.channels, first.dtype):
            wrong.append(f"{other.path}: holds {_shape(other)}, expected {_shape(first)}")
        if wrong:
            raise InputError("\n".join([*wrong, f"It must agree with {first.path} to be used beside it."]))


def _shape(cache: FeatureCache) -> str:
    return f"{cache.regions} x {cache.channels} {_name(cache.dtype)}"


def _locate(caches: Sequence[FeatureCache], image_ids: Sequence[str]) -> _Source:
    """The first cache that has each picture; raises InputError naming the pictures that none has."""
    cache_N = np.full(len(image_ids), -1, dtype=np.int64)
    row_N = np.full(len(image_ids), -1, dtype=np.int64)
    for number, cache in enumerate(caches):
        open_N = np.flatnonzero(cache_N < 0)
        found_N = cache.find([image_ids[i] for i in open_N.tolist()])
        cache_N[open_N[found_N >= 0]] = number
        row_N[open_N] = found_N
    lacking = [image_ids[i] for i in np.flatnonzero(cache_N < 0).tolist()]
    if lacking and len(caches) == 1:
        caches[0].rows(lacking)
    if lacking:
        files = "\n".join(f"  {cache.path}: {cache.completing_command}" for cache in caches)
        raise InputError(
            f"{len(lacking):,} of {len(image_ids):,} pictures are in none of the feature caches, first: "
            f"{', '.join(lacking[:5])}\nThe caches and the commands that complete them:\n{files}"
        )
    return _Source(cache_N, row_N)


def _plan(values: int, kept: torch.dtype, wanted: torch.dtype, device: torch.device, residency: str) -> _Plan:
    """Choose where a table of so many numbers goes, and whether it is converted, from what is free now."""
    stored, converted = values * kept.itemsize, values * wanted.itemsize
    free_host = available_memory()
    on_cpu = device.type != "cuda"
    free_device = free_host if on_cpu else torch.cuda.mem_get_info(device)[0]
    place = "main memory" if on_cpu else str(device)
    options: list[tuple[Residency, str, int, float]] = [("host", "main memory", free_host, HOST_SHARE)]
    if not on_cpu or residency == "device":
        options.insert(0, ("device", place, free_device, HOST_SHARE if on_cpu else DEVICE_SHARE))
    for name, where, free, share in options:
        if residency not in ("auto", name):
            continue
        sizes = sorted({(converted, wanted), (stored, kept)}, key=lambda size: size[1] != wanted)
        for size, kind in sizes:
            if size <= free * share:
                return _Plan(
                    name, kind, f"features in {where}: {_gigabytes(size)} as {_name(kind)}, {_gigabytes(free)} free"
                )
        if residency == name:
            raise InputError(
                f"residency: {name} needs {_gigabytes(min(stored, converted))}, but {where} has {_gigabytes(free)} "
                f"free, of which {share:.0%} may be used; take residency: auto or disk"
            )
    return _Plan("disk", kept, _disk_reason(residency, stored, free_host))


def _disk_reason(residency: str, stored: int, free: int) -> str:
    why = "as asked" if residency == "disk" else "too large to be held whole"
    return f"features read from the disk, {why}: {_gigabytes(stored)}, {_gigabytes(free)} of main memory free"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def available_memory() -> int:
    """Bytes of main memory that this process may still take, container limits included."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    for limit_file, used_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        if Path(limit_file).exists() and Path(used_file).exists():
            limit = Path(limit_file).read_text().strip()
            if limit.isdigit():
                free = min(free, max(0, int(limit) - int(Path(used_file).read_text())))
    return free
