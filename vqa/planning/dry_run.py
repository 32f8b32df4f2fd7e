"""`--dry-run`: what a training would be, take and leave on the disk, without one; nothing is written."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vqa.errors import InputError
from vqa.experiment import Experiment, doubts
from vqa.overrides import differences_at
from vqa.planning.describe import Description, describe
from vqa.planning.show import print_description
from vqa.planning.sizes import SizeOptions
from vqa.progress import console
from vqa.runtime.memory import human_bytes
from vqa.tables import Column, Row, Table, print_table
from vqa.training.resume import already_trained
from vqa.training.run_folder import RunFolder


@dataclass(frozen=True)
class Disk:
    """Bytes that a run leaves on the disk: the best weights, and the last ones with the optimiser's state."""

    model: int
    state: int

    @property
    def total(self) -> int:
        """Both of them; the other files are small beside them."""
        return self.model + self.state


def disk_of(description: Description) -> Disk:
    """What the run of a description leaves: frozen weights of a language model are in no file."""
    trained = description.memory["gradients"] or 0
    return Disk(trained, trained + (description.memory["optimiser state"] or 0))


def outlook(experiment: Experiment) -> str:
    """What `vqa train` would do with the run folder, in words."""
    folder = RunFolder(experiment.folder)
    try:
        if already_trained(folder, experiment, resume=False):
            return "is trained already and would be left as it is"
    except InputError as error:
        return str(error).removeprefix(f"{folder.path}: ")
    return "would go on for more epochs" if folder.finished.is_file() else "would be begun"


def print_dry_run(experiment: Experiment) -> None:
    """The resolved file, and what `vqa describe` prints, and what the run would leave on the disk.

    Raises:
        InputError: as `describe`.
    """
    console.print(_as_yaml(experiment.resolved()), end="", soft_wrap=True)
    description = describe(experiment, SizeOptions())
    print_description(description, experiment)
    _print_disk(experiment, disk_of(description).total, 1)
    console.print(f"{experiment.folder}: {outlook(experiment)}; nothing was trained or written (--dry-run)")


def print_dry_ablation(name: str, cells: Sequence[tuple[str, Sequence[Experiment]]]) -> None:
    """The resolved file of the first run, where each cell differs from it, and a row of costs for each cell.

    Raises:
        InputError: as `describe`, naming the cell.
    """
    first = cells[0][1][0]
    console.print(_as_yaml(first.resolved()), end="", soft_wrap=True)
    rows, left, unknown = [], 0, False
    for label, experiments in cells:
        try:
            found = describe(experiments[0], SizeOptions())
        except InputError as error:
            raise InputError(f"{label}: {error}") from None
        changed = differences_at(first.resolved(), experiments[0].resolved())
        shown = [f"{'.'.join(path)}: {now}" for path, _, now in changed if path != ("name",)]
        console.print(f"{label}  {'; '.join(shown) or 'as above'}", soft_wrap=True)
        for doubt in doubts(experiments[0], regions=found.sizes.regions, questions=found.sizes.questions):
            console.print(f"  warning: {doubt}")
        todo = [one for one in experiments if not RunFolder(one.folder).finished.is_file()]
        disk, memory = disk_of(found), [one for one in found.memory.values() if one is not None]
        left, unknown = left + disk.total * len(todo), unknown or found.steps is None
        values = (found.parameters, found.steps, sum(memory) / 1e9, disk.total / 1e9, len(todo))
        rows.append(Row(label, tuple(None if one is None else float(one) for one in values)))
    columns = (
        Column("parameters", decimals=0), Column("steps", decimals=0), Column("memory GB"), Column("disk GB"),
        Column("runs to do", decimals=0),
    )  # fmt: skip
    caption = "Of one run: steps of all epochs, memory of training with features, disk of its last and best weights."
    note = "Steps are not known without the data." if unknown else ""
    print_table(Table(f"Ablation {name}", caption, columns, tuple(rows), note=note, row_heading="Cell", best="none"))
    _print_disk(first, left, int(sum(row.values[-1] or 0 for row in rows)))
    console.print("nothing was trained or written (--dry-run)")


def _as_yaml(values: Any) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _print_disk(experiment: Experiment, needed: int, runs: int) -> None:
    """What the runs leave on the disk, and a warning where that is not free."""
    runs_folder = Path(experiment.runs).absolute()
    here = next(folder for folder in (runs_folder, *runs_folder.parents) if folder.is_dir())
    free = shutil.disk_usage(here).free
    console.print(f"disk: {human_bytes(needed)} in {runs} run folder{'s' * (runs != 1)}; {human_bytes(free)} are free")
    if needed > free:
        console.print("warning: that is more than is free; make room, or set runs= to a folder on another disk")
