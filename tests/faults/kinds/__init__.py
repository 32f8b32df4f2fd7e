"""The kinds of faults: one module each, with a function `cases()`."""

from faults.case import Case, numbered
from faults.kinds import experiments, run_files

MODULES = {"experiments": experiments.cases, "run files": run_files.cases}


def all_cases() -> list[Case]:
    """Every case of every kind, in the order that they are tried."""
    return [case for kind, cases in MODULES.items() for case in numbered(kind, cases())]
