"""`vqa ablate`: every run of a grid trained and evaluated, and the tables of them.

`vqa.studies.grid` reads the file, `checks` looks at everything before the first step, `worker` does the runs beside any
number of others, `summary` makes the tables, and `launch` and `slurm` start several workers.
"""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vqa.errors import FailedRunsError, InputError
from vqa.files import read_json, sha256_file
from vqa.locks import acquire
from vqa.progress import console
from vqa.runtime.distributed import joined
from vqa.studies.checks import check_ablation, unfinished
from vqa.studies.grid import Ablation, ablate_command, open_ablation
from vqa.studies.summary import Found, write_tables
from vqa.studies.worker import Worker
from vqa.tables import Table, print_table
from vqa.training.tracking.ablation import track_ablation_once
from vqa.training.tracking.guard import attempt
from vqa.training.tracking.trackers import is_tracked

TRACK_SECONDS = 300.0  # that the trackers may take for the table; each of their calls has a bound of its own


def ablate(
    path: Path,
    overrides: Sequence[str] = (),
    json_file: Path | None = None,
    *,
    together: bool = False,
    wait: bool = True,
    table_only: bool = False,
) -> list[Table]:
    """Run what nobody has run of a grid, evaluate each run, and write tables of means and deviations.

    The tables, of tasks and answer types and, if asked for, of slices, go to `experiments/runs/<name>/ablation.md`,
    their numbers to `ablation.json` (and to `json_file`), after every run. A run that is finished and evaluated is not
    run again; an interrupted one goes on from where it stopped. One that fails does not stop the others.

    Args:
        together: train the runs that see the same batches in one go (`vqa.training.together`).
        wait: for runs that other processes have; otherwise leave when nothing is free.
        table_only: run nothing, and write the tables of what is there.

    Raises:
        InputError: before the first step: see `check_ablation`.
        FailedRunsError: some runs failed; all others are trained and evaluated, and the tables are written and printed.
    """
    ablation = open_ablation(path, overrides)
    if table_only:
        unfinished(ablation)  # or a folder is of another experiment
        return end(ablation, *write_tables(ablation, json_file), table_only=True)
    command = shlex.join(ablate_command(path, overrides, together=together, wait=wait))
    with joined() as group:
        if together and not group.alone:
            raise InputError("models are trained together in one process; leave out --together, or torchrun")
        group.agree(lambda: check_ablation(ablation))
        Worker(ablation, command, group, together=together, wait=wait).work()
        found, tables = group.from_first(lambda: write_tables(ablation, json_file))
        if group.is_first:
            track(ablation, found)
    return end(ablation, found, tables)


def track(ablation: Ablation, found: Found) -> None:
    """Show the table of an ablation that is over where its runs are tracked, once; whatever goes wrong is only said."""
    sections = (run.experiment.tracking for run in ablation.runs)
    section = next(filter(is_tracked, sections), None)
    if section is None or found.missing or not found.count:
        return

    def show() -> None:
        if (held := acquire(ablation.folder / ".tracking.lock")) is None:
            return  # another worker does
        try:
            numbers = ablation.folder / "ablation.json"
            track_ablation_once(ablation.folder, section, read_json(numbers, dict[str, Any]), sha256_file(numbers))
        finally:
            held.release()

    if said := attempt(show, TRACK_SECONDS):
        console.print(f"the table is not in the trackers: {said}", soft_wrap=True)


def end(ablation: Ablation, found: Found, tables: list[Table], *, table_only: bool = False) -> list[Table]:
    """Say where the tables are, and return them.

    Raises:
        FailedRunsError: listing the runs that failed, unless `table_only`.
        InputError: with `table_only`, where there is nothing to tabulate.
    """
    total = len(ablation.runs)
    if tables:
        console.print(f"table: {ablation.folder / 'ablation.md'}, numbers: {ablation.folder / 'ablation.json'}")
    elif table_only and not found.failures:
        raise InputError(f"{ablation.path}: no run of it is evaluated yet, in {ablation.folder}")
    if found.missing:
        console.print(f"{found.count} of {total} runs are done, {len(found.missing)} are not")
    if found.failures and not table_only:
        for table in tables:
            print_table(replace(table, note=""))  # the error says the same
        raise FailedRunsError("\n".join([f"{len(found.failures)} of {total} runs failed:", *found.failures]))
    return tables
