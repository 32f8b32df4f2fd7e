"""How much main memory there is for this process, the limits of containers and control groups included.

And what to say when it is not enough: allocators report that in a dozen ways.
"""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vqa.errors import InputError

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
MEMORY = Path("/proc/meminfo")

UNITS = (("EB", 1e18), ("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
BINARY = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50, "EiB": 2**60}
# a size that no address reaches: what torch, NumPy and Python say of one
OVERFLOW = re.compile(
    r"storage size calculation overflowed|integer multiplication overflow|overflow when unpacking long"
    r"|array is too big|maximum allowed dimension exceeded|cannot fit 'int' into an index-sized integer",
    re.IGNORECASE,
)
# the allocators of main memory and of GPUs, and libraries that do not say how much they wanted
REFUSED = re.compile(
    r"can't allocate memory|not enough memory|out of memory|unable to allocate|cannot allocate memory"
    r"|_STATUS_ALLOC_FAILED|invalid buffer size",
    re.IGNORECASE,
)
GPU = re.compile(r"CUDA|CUDNN|CUBLAS|HIP|MPS")
ASKED = re.compile(r"(?:allocate|allocating|asked for) (?P<number>[\d.]+) ?(?P<unit>bytes|[KMGTPE]i?B)", re.IGNORECASE)


class _Limit(NamedTuple):
    """A control group's limit, what it holds, and what of that are pages of files that can be dropped, in bytes."""

    limit: int
    used: int
    droppable: int


def available_memory() -> int:
    """Bytes of main memory that this process may still take."""
    free = _pages("SC_PHYS_PAGES")
    if MEMORY.exists():
        fields = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    return min([free, *(max(0, one.limit - one.used + one.droppable) for one in _limits())])


def total_memory() -> int:
    """Bytes of main memory that this process could take if nothing else ran."""
    return min([_pages("SC_PHYS_PAGES"), *(one.limit for one in _limits())])


def _pages(name: str) -> int:
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")


def _limits() -> list[_Limit]:
    """Of the control groups, old and new kind, that this process is in, and of those around them."""
    own = [line.split(":", 2) for line in OWN_GROUPS.read_text().splitlines()] if OWN_GROUPS.exists() else []
    folders = [CONTROL_GROUPS, CONTROL_GROUPS / "memory"]
    for _, controllers, path in own:
        if controllers in ("", "memory"):
            group = PurePosixPath(path.lstrip("/"))
            folders += [CONTROL_GROUPS / controllers / outer for outer in (group, *group.parents)]
    found = []
    for folder in dict.fromkeys(folders):
        for names in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            files = [folder / name for name in (*names, "memory.stat")]
            if not all(file.is_file() for file in files):
                continue
            limit, used, statistics = (file.read_text().strip() for file in files)
            counts = {line.split()[0]: int(line.split()[1]) for line in statistics.splitlines()}
            pages = [counts.get(f"total_{kind}_file", counts.get(f"{kind}_file", 0)) for kind in ("active", "inactive")]
            if limit.isdigit():  # "max" is none
                found.append(_Limit(int(limit), int(used), sum(pages)))
    return found


def peak_memory() -> int:
    """The most main memory that this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says may be the peak of the process that started this one
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(fields["VmHWM"].split()[0]) * 1024
    import resource  # not on Windows, where the package is still imported

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def human_bytes(size: float) -> str:
    """A size in words.

    >>> human_bytes(24_700_000_000)
    '24.7 GB'
    """
    for unit, factor in UNITS:
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size:.0f} B"


def memory_sentence(error: BaseException) -> str | None:
    """What an allocator's error means, or None where it is another error.

    Knows those of Python, NumPy and torch, of main memory and of a GPU, and those of sizes that overflow; needs no
    torch to be imported.

    >>> memory_sentence(MemoryError())
    'out of memory'
    """
    said = str(error)
    if OVERFLOW.search(said) and isinstance(error, RuntimeError | TypeError | ValueError | OverflowError):
        sizes = re.search(r"sizes=(\[[^\]]*\])", said)
        return f"out of memory: a tensor{f' of {sizes[1]}' if sizes else ''} is larger than any memory"
    no_room = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if not (no_room or isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and REFUSED.search(said))):
        return None
    of_gpu = type(error).__name__ == "OutOfMemoryError" or GPU.search(said)
    where = "out of GPU memory" if of_gpu else "out of memory"
    asked = ASKED.search(said)
    if asked is None:
        return where
    unit = asked["unit"]
    factor = 1 if unit == "bytes" else BINARY.get(unit, BINARY.get(unit.replace("B", "iB"), 1))
    return f"{where}: {human_bytes(float(asked['number'].rstrip('.')) * factor)} more were asked for"


@contextmanager
def memory_errors_named(remedy: str) -> Iterator[None]:
    """Turn an allocator's error into one sentence that ends in what to do.

    Raises:
        InputError: there was no memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError, OverflowError, TypeError, ValueError) as error:
        if (sentence := memory_sentence(error)) is None:
            raise
        raise InputError(f"{sentence}; {remedy}") from None
