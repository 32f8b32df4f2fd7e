"""How much main memory there is for this process, the limits of containers and control groups included."""

import os
import sys
from pathlib import Path, PurePosixPath
from typing import NamedTuple

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
MEMORY = Path("/proc/meminfo")


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
