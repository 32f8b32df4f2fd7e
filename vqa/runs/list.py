"""`vqa runs`: what was run, one row a run folder, with its state and its headline numbers; nothing is written."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from vqa.errors import InputError, first_line, shortened, unknown_name
from vqa.experiment import Experiment
from vqa.files import read_json, write_json
from vqa.locks import Lease, is_locked, lease_beside
from vqa.progress import console
from vqa.training.run_folder import RunFolder, failure_of, is_step, open_run, read_evaluation, read_metrics

State = Literal["running", "failed", "died", "done", "new", "damaged"]
Sort = Literal["name", "state", "val", "epochs", "time", "newest"]
STATES = ("running", "failed", "died", "done", "new", "damaged")
TRACES = ("state.pt", "model.safetensors", "metrics.jsonl", "finished.json")  # of a run without its experiment.yaml
OPEN_ENDED, MULTIPLE_CHOICE = "val/open_ended/overall", "val/multiple_choice/overall"
NAME_WIDTH = 24  # of the terminal's columns, at least


@dataclass(frozen=True)
class RunRow:
    """A run folder.

    Attributes:
        path: the folder.
        name, seed: of its experiment; None where that cannot be read.
        state: "running" while a process holds it, here or elsewhere; "failed" where an ablation has left word why;
            "died" where one that had begun is held by none; "done"; "new" where nothing is saved yet; "damaged".
        epochs, planned: that are done, and that the experiment has.
        kept_epoch: whose weights are kept: of the highest accuracy on validation, or with `training.keep: last` the
            last one so far.
        open_ended, multiple_choice: accuracies of that epoch on validation, in percent; None where there is none.
        protocol: of these accuracies.
        evaluated: open-ended accuracy by split of what `vqa evaluate` found of the weights as they are now.
        seconds: of training.
        changed: when the folder's numbers last changed, in seconds since 1970.
        damage: what is wrong, or what it failed with, in a sentence; None where nothing is.
    """

    path: str
    name: str | None
    seed: int | None
    state: State
    epochs: int = 0
    planned: int | None = None
    kept_epoch: int | None = None
    open_ended: float | None = None
    multiple_choice: float | None = None
    protocol: str | None = None
    evaluated: dict[str, float] | None = None
    seconds: float | None = None
    changed: float = 0.0
    damage: str | None = None

    @property
    def shown_name(self) -> str:
        """How the table calls it."""
        return self.path if self.name is None or self.state == "damaged" else f"{self.name}/{self.seed}"


def find_runs(folder: Path) -> list[RunRow]:
    """Every run folder at or below a folder.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; runs land in experiments/runs, or where `runs:` says")
    return [_row(path) for path in _run_folders(folder)]


def _run_folders(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders.sort()
        if "experiment.yaml" in files or sum(name in files for name in TRACES) > 1:
            folders.clear()  # what is in a run is no run
            yield Path(here)


def _row(path: Path) -> RunRow:
    """What a folder holds; what cannot be read of it is its damage."""
    folder = RunFolder(path)
    held = is_held(path)
    try:
        _, experiment, _ = open_run(path)
    except InputError as error:
        return RunRow(str(path), None, None, "damaged", damage=_said(error, path), changed=_changed(folder))
    known: dict[str, Any] = {"planned": experiment.training.epochs, "changed": _changed(folder)}
    try:
        known |= _numbers(folder, experiment)
        failure = None if held else failure_of(folder)
        if failure is not None:
            said = _said(InputError(failure), path)
            return RunRow(str(path), experiment.name, experiment.seed, "failed", **known, damage=said)
        if folder.finished.is_file():
            state: State = "done"
        else:
            state = "died" if folder.state.is_file() or known.get("epochs") else "new"
        return RunRow(str(path), experiment.name, experiment.seed, "running" if held else state, **known)
    except InputError as error:
        return _damaged(path, experiment, known, error)


def _damaged(path: Path, experiment: Experiment, known: dict[str, Any], error: InputError) -> RunRow:
    said = _said(error, path)
    return RunRow(str(path), experiment.name, experiment.seed, "damaged", **known, damage=said)


def _said(error: InputError, path: Path) -> str:
    return shortened(first_line(error).replace(f"{path}/", "").replace(f"{path}: ", ""), 300)


def _changed(folder: RunFolder) -> float:
    files = (folder.finished, folder.metrics, folder.state, folder.experiment)
    return max((path.stat().st_mtime for path in files if path.is_file()), default=0.0)


def _numbers(folder: RunFolder, experiment: Experiment) -> dict[str, Any]:
    """Epochs, the accuracies of the kept one, and time, from metrics.jsonl and finished.json.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    rows = [row for row in read_metrics(folder.metrics) if not is_step(row) and "epoch" in row]
    ended = read_json(folder.finished, dict[str, Any]) if folder.finished.is_file() else {}
    if experiment.training.keep == "last":
        kept = rows[-1] if rows else {}
    else:
        kept = max((row for row in rows if OPEN_ENDED in row), key=lambda row: row[OPEN_ENDED], default={})
    return {
        "epochs": max((int(row["epoch"]) for row in rows), default=0),
        "kept_epoch": kept.get("epoch"),
        "open_ended": kept.get(OPEN_ENDED),
        "multiple_choice": kept.get(MULTIPLE_CHOICE),
        "protocol": kept.get("val/protocol"),
        "seconds": ended.get("seconds", rows[-1].get("seconds") if rows else None),
        "evaluated": dict(_evaluations(folder)),
    }


def _evaluations(folder: RunFolder) -> Iterator[tuple[str, float]]:
    """Open-ended accuracies by split, of evaluations that are no older than the weights."""
    made = folder.model.stat().st_mtime if folder.model.is_file() else 0.0
    for file in sorted(folder.path.glob("evaluation_*.json")):
        found = read_evaluation(file)
        scores = found["accuracy"].get("open_ended")
        if scores is not None and file.stat().st_mtime >= made:
            yield file.stem.removeprefix("evaluation_"), scores["overall"]


def is_held(folder: Path) -> bool:
    """Whether a process works on a run now: it holds the lock, or the lease of a worker on this or another machine."""
    if is_locked(folder / ".lock"):
        return True
    leases = (RunFolder(folder).lease, lease_beside(folder / ".lock"))
    return any(Lease(path).holder(time.time()) for path in leases)


def list_runs(
    folder: Path,
    *,
    name: str | None = None,
    states: Sequence[str] = (),
    sort: Sort = "name",
    json_file: Path | None = None,
) -> list[RunRow]:
    """Print the runs below a folder as a table of at most the terminal's width.

    Args:
        name: only those whose name and seed, `san/0`, or name alone, match it; `*` stands for anything.
        states: only those in one of them.
        sort: by name, or the best, the longest or the newest first.
        json_file: where the rows go, too.

    Raises:
        InputError: there is no such folder, or no such state.
    """
    for one in states:
        if one not in STATES:
            raise InputError(unknown_name("state of runs", one, STATES))
    rows = [
        row
        for row in find_runs(folder)
        if (not states or row.state in states)
        and (name is None or any(fnmatchcase(one, name) for one in (row.shown_name, row.name or "", row.path)))
    ]
    keys: dict[str, Any] = {
        "name": lambda row: (row.name or row.path, row.seed or 0),
        "state": lambda row: (STATES.index(row.state), row.name or row.path, row.seed or 0),
        "val": lambda row: -1.0 if row.open_ended is None else row.open_ended,
        "epochs": lambda row: row.epochs,
        "time": lambda row: row.seconds or 0.0,
        "newest": lambda row: row.changed,
    }
    rows.sort(key=keys[sort], reverse=sort not in ("name", "state"))
    _print(folder, rows)
    if json_file is not None:
        write_json(json_file, [asdict(row) for row in rows])
    return rows


def _print(folder: Path, rows: Sequence[RunRow]) -> None:
    if not rows:
        console.print(f"{folder}: no runs, or none that match")
        return
    shown = RichTable(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("run", overflow="fold", min_width=NAME_WIDTH)
    for heading in ("state", "epochs", "open-\nended", "mult.\nchoice", "evaluated", "time"):
        shown.add_column(Text(heading), justify="left" if heading in ("state", "evaluated") else "right")
    for row in rows:
        evaluated = "\n".join(f"{split} {value:.2f}" for split, value in (row.evaluated or {}).items())
        epochs = "" if row.planned is None else f"{row.epochs}/{row.planned}"
        numbers = ("" if one is None else f"{one:.2f}" for one in (row.open_ended, row.multiple_choice))
        style = {"running": "bold", "failed": "red", "died": "yellow", "damaged": "red"}.get(row.state, "")
        shown.add_row(Text(row.shown_name), Text(row.state, style), epochs, *numbers, evaluated, _duration(row.seconds))
    console.print(shown)
    protocols = ", ".join(sorted({row.protocol for row in rows if row.protocol})) or "2021"
    console.print(
        f"{len(rows)} run{'' if len(rows) == 1 else 's'} in {folder}. VQA accuracy in percent on validation, of the "
        "epoch whose weights are kept: the best there, which it was chosen by, or the last with training.keep=last; "
        f"protocol {protocols}; evaluated: open-ended, by `vqa evaluate`."
    )
    for row in rows:
        if row.damage is not None:
            console.print(f"{row.path}: {row.damage}")


def _duration(seconds: float | None) -> str:
    """Of a training: "12 s", "3.4 min", "5.1 h"."""
    if seconds is None:
        return ""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
