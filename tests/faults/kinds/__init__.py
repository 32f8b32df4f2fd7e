"""The kinds of faults: one module each, with a function `cases()`."""

from faults.case import Case, numbered
from faults.kinds import (
    answers,
    archives,
    caches,
    experiments,
    full_disks,
    images,
    kills,
    locks,
    numbers,
    outputs,
    run_files,
    signals,
    special,
    terminals,
    trackers,
)

MODULES = {
    "experiments": experiments.cases,
    "run files": run_files.cases,
    "caches": caches.cases,
    "answers": answers.cases,
    "images": images.cases,
    "archives": archives.cases,
    "outputs": outputs.cases,
    "terminals": terminals.cases,
    "special": special.cases,
    "numbers": numbers.cases,
    "kills": kills.cases,
    "full disks": full_disks.cases,
    "signals": signals.cases,
    "trackers": trackers.cases,
    "locks": locks.cases,
}


def all_cases() -> list[Case]:
    """Every case of every kind, in the order that they are tried."""
    return [case for kind, cases in MODULES.items() for case in numbered(kind, cases())]
