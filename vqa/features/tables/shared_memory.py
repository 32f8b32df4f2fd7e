"""One table in main memory for all processes of a machine: a file in shared memory that each of them maps.

Each process holds a shared lock on the file while it uses it; the last one removes it. What processes that were killed
have left is removed by the next process that comes here, because nobody holds a lock on it any more.
"""

import hashlib
import mmap
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from vqa.features.cache.reader import FeatureCache
from vqa.features.tables.stored_rows import MemoryRows, Source
from vqa.locks import hold, lock, share

SHARED_MEMORY = Path("/dev/shm")
SPARE_BYTES = 1 << 20


def can_share() -> bool:
    """Whether this system has shared memory that files can be put in."""
    return SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK)


def table_file(caches: Sequence[FeatureCache], source: Source, contents: str) -> Path:
    """Where a table lies that holds of these rows of these files what `contents` names, such as their type."""
    digest = hashlib.sha256(contents.encode())
    for cache in caches:
        facts = cache.path.stat()
        digest.update(repr((facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)).encode())
    digest.update(source.cache_N.tobytes() + source.row_N.tobytes())
    return SHARED_MEMORY / f"{_prefix()}{digest.hexdigest()[:32]}.table"


def _prefix() -> str:
    return f"vqa-{os.getuid()}-"


def _lock_file() -> Path:
    return SHARED_MEMORY / f"{_prefix()}tables.lock"


@contextmanager
def sole_visitor() -> Iterator[None]:
    """Keep the user's other processes from making, taking or leaving shared tables meanwhile; removes what was left."""
    with lock(_lock_file()):
        for path in SHARED_MEMORY.glob(f"{_prefix()}*.table"):
            with path.open("rb") as file:
                _remove_unused(path, file.fileno())
        yield


def _remove_unused(path: Path, descriptor: int) -> None:
    """Remove a table unless some other process holds it."""
    if hold(descriptor):
        path.unlink(missing_ok=True)


def room_for(path: Path, size: int) -> str:
    """Why a table of so many bytes cannot be shared, as a clause; empty where it can, or already is."""
    if path.exists():
        return ""
    facts = os.statvfs(SHARED_MEMORY)
    free = facts.f_bavail * facts.f_frsize
    return "" if size + SPARE_BYTES <= free else f"{SHARED_MEMORY} has {free / 1e9:.2f} GB free"


def shared_rows(path: Path, shape: tuple[int, ...], dtype: torch.dtype, fill: Callable[[Tensor], None]) -> MemoryRows:
    """Map a table, made and filled first where it is not there; call it as `sole_visitor`.

    It is let go of when the rows are no longer used, at the end of the process at the latest.
    """
    size = max(1, torch.Size(shape).numel() * dtype.itemsize)
    there = path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        share(descriptor)
        if not there:
            os.posix_fallocate(descriptor, 0, size)  # all of it now: later there would be no way to refuse
        mapped = mmap.mmap(descriptor, size)
        table_NRC = torch.frombuffer(mapped, dtype=dtype, count=torch.Size(shape).numel()).view(shape)
        if not there:
            fill(table_NRC)
    except BaseException:
        if not there:
            path.unlink(missing_ok=True)
        os.close(descriptor)
        raise
    rows = MemoryRows(table_NRC)
    weakref.finalize(rows, _let_go, path, descriptor)
    return rows


def _let_go(path: Path, descriptor: int) -> None:
    with lock(_lock_file()):
        _remove_unused(path, descriptor)
        os.close(descriptor)
