"""The grid of an ablation, and ranges, as a sweep of Weights & Biases: `vqa ablate FILE --sweep sweep.yaml`.

W&B chooses the values and calls `vqa train FILE --key=value …` for each trial. A trial is a run like any other, in
a folder of its own, `<runs>/<name>/<cell>/sweep-<sweep's id>/<run's id>/<seed>`; `tables_of_sweep` reads them again.
"""

import itertools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from vqa.errors import InputError, quoted, unknown_name
from vqa.evaluation.report.diagnostics import parse_slices
from vqa.experiment import Experiment, check_overridden, read_experiment
from vqa.files import atomic_write, write_json
from vqa.overrides import Assignment, assign, load_yaml, parse_assignments, read_yaml, value_at
from vqa.progress import console
from vqa.recipes import ABLATIONS_FIRST, experiment_file, find_recipe
from vqa.studies.grid import AblationFile, read_ablation
from vqa.studies.summary import evaluation_options
from vqa.studies.table.figures import summarise
from vqa.studies.table.results import slice_table, summary_table
from vqa.studies.worker import run_and_evaluate
from vqa.tables import Table, render_markdown
from vqa.training.run_folder import RunFolder, open_run

Method = Literal["grid", "random", "bayes"]
METRIC = "val/open_ended/overall"  # as every epoch logs it
SWEEP_ID, RUN_ID = "WANDB_SWEEP_ID", "WANDB_RUN_ID"  # that an agent sets for what it calls
FOLDER = "sweep-{}"  # in which the trials of a sweep lie, beside each other
PLACE = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # what may be a part of a run's name


def write_sweep(
    path: Path, overrides: Sequence[str], to: Path, method: Method | None = None, trials: int | None = None
) -> None:
    """Write the sweep file of an ablation; every experiment of its grid, and both ends of every range, are checked.

    Args:
        overrides: `key.path=value` for every trial.
        method: None takes the grid, or random values where there are ranges.
        trials: the most that W&B starts; None: a grid has an end, and others get 20.

    Raises:
        InputError: naming the file and the key; ranges for a grid, or a file that is no ablation.
    """
    ablation, cells = read_ablation(path, overrides)
    recipe = None if experiment_file(path, ABLATIONS_FIRST) == path else find_recipe(path.as_posix(), ABLATIONS_FIRST)
    named = str(path) if recipe is None else recipe.name  # in which vqa train, too, finds the ablation
    _check_ranges(path, ablation, overrides)
    method = method or ("random" if ablation.ranges else "grid")
    if method == "grid" and ablation.ranges:
        raise InputError(f"{path}: a grid has no ranges ({', '.join(ablation.ranges)}); take --method random or bayes")
    parameters: dict[str, Any] = {"cell": {"values": list(ablation.cells)}} if ablation.cells else {}
    parameters |= {key: {"values": [as_argument(one) for one in values]} for key, values in ablation.grid.items()}
    parameters |= {key: one.model_dump(exclude_none=True) for key, one in ablation.ranges.items()}
    parameters["seed"] = {"values": ablation.seeds}
    experiments = [one for cell in cells for one in cell.experiments]
    validated = all(one.data.val is not None or one.data.held_out is not None for one in experiments)
    if not validated and method == "bayes":
        raise InputError(f"{path}: bayes chooses by {METRIC}, and its runs have no validation; name data.val")
    disabled = any(one.tracking.wandb == "disabled" for one in experiments)
    tracked = ["tracking.wandb=online"] if disabled else []  # or W&B would never see what it ranks by
    sweep: dict[str, Any] = {
        "program": "vqa",
        "command": ["${env}", "vqa", "train", named, *overrides, *tracked, "${args}"],
        "name": ablation.name,
        "method": method,
        **({"metric": {"name": METRIC, "goal": "maximize"}} if validated else {}),
        "parameters": parameters,
    }
    if method != "grid" or trials is not None:
        sweep["run_cap"] = trials or 20
    with atomic_write(to) as file:
        file.write("# from `vqa ablate --sweep`; vqa train reads the ablation file, too, so keep it where it is\n")
        yaml.safe_dump(sweep, file, sort_keys=False, allow_unicode=True, width=1000)
    console.print(f"{to}: {_extent(ablation, sweep)}\nnext: wandb sweep {to}, then wandb agent SWEEP_ID in this folder")
    console.print(f"the table of what it has run: vqa ablate {path} --swept SWEEP_ID")


def _extent(ablation: AblationFile, sweep: Mapping[str, Any]) -> str:
    points = [len(ablation.seeds), max(1, len(ablation.cells)), *map(len, ablation.grid.values())]
    count = math.prod(points)
    of = f"{count} points" if not ablation.ranges else f"{', '.join(ablation.ranges)}"
    most = f", at most {sweep['run_cap']} trials" if "run_cap" in sweep else ""
    best = f", best by {METRIC}" if "metric" in sweep else ""
    return f"{sweep['method']} over {of}{most}{best}"


def as_argument(value: Any) -> Any:
    """A value that an agent may write behind `--key=`, with Python's str, so that YAML reads it as it was."""
    plain = isinstance(value, str | int | float)
    if plain and _reads_as(str(value), value):
        return value
    return json.dumps(value, ensure_ascii=False)  # which is YAML, too


def _reads_as(text: str, value: Any) -> bool:
    try:
        read = load_yaml(text, "value")
    except InputError:
        return False
    return type(read) is type(value) and bool(read == value)


def _check_ranges(path: Path, ablation: AblationFile, overrides: Sequence[str]) -> None:
    """Raise InputError where an end of a range is no value of its key in some cell."""
    for key, one in ablation.ranges.items():
        for end in (one.min, one.max):
            try:
                read_ablation(path, [*overrides, f"{key}={end}"])
            except InputError as error:
                raise InputError(f"{path}: ranges.{key}: {error}") from None


def trial_of(experiment: Experiment) -> Experiment:
    """The experiment as a trial of the sweep whose agent calls: the same in a folder of its own; else as it is.

    Raises:
        InputError: the agent's ids cannot be names of folders.
    """
    sweep, run = os.environ.get(SWEEP_ID), os.environ.get(RUN_ID)
    if not sweep or not run:
        return experiment
    for variable, value in ((SWEEP_ID, sweep), (RUN_ID, run)):
        if not re.fullmatch(PLACE, value):
            raise InputError(f"{variable}={value!r} in the environment is no id of W&B; unset it to train without it")
    return experiment.model_copy(update={"name": f"{experiment.name}/{FOLDER.format(sweep)}/{run}"})


def is_trial() -> bool:
    """Whether a sweep's agent calls; it calls a trial that was cut off again, which then goes on."""
    return bool(os.environ.get(SWEEP_ID) and os.environ.get(RUN_ID))


def read_training(named: Path, overrides: Sequence[str]) -> Experiment:
    """What `vqa train` trains: an experiment, one run of an ablation, or a trial of a sweep over either.

    Of an ablation file the run is named by its `cell`, or by a value for every key of its grid.

    Raises:
        InputError: as `read_experiment` and `read_ablation`, and where an ablation's run is not named.
    """
    path = experiment_file(named)
    if "base" not in read_yaml(path):
        return trial_of(read_experiment(named, overrides))
    ablation, _ = read_ablation(path)
    given = parse_assignments(overrides)
    chosen = {".".join(one.path): one.value for one in given if _chooses(one, ablation)}
    cells = read_ablation(path, [one for one in given if not _chooses(one, ablation)])[1]
    cell = cells[_chosen(path, ablation, [cell.label for cell in cells], chosen)]
    values = cell.experiments[0].resolved()
    of_trial = [one for one in given if ".".join(one.path) in ("seed", *ablation.ranges)]
    return trial_of(check_overridden(lambda some: assign(values, some), of_trial, f"{path} ({cell.label})"))


def _chooses(one: Assignment, ablation: AblationFile) -> bool:
    """Whether an assignment names the cell or gives a value of the grid."""
    return ".".join(one.path) in ("cell", *ablation.grid)


def _chosen(path: Path, ablation: AblationFile, labels: Sequence[str], chosen: Mapping[str, Any]) -> int:
    """Which of the cells is meant.

    Raises:
        InputError: none, or one that is not there.
    """
    if len(labels) == 1 and not chosen:
        return 0
    if "cell" in chosen:
        if chosen["cell"] not in labels:
            raise InputError(f"{path}: {unknown_name('cell', str(chosen['cell']), labels)}")
        return labels.index(chosen["cell"])
    missing = [key for key in ablation.grid if key not in chosen]
    if missing or not ablation.grid:
        wanted = f"a value for {', '.join(missing)}, or " if chosen else ""
        raise InputError(
            f"{path}: an ablation file (it names a base); `vqa ablate {path}` runs it; for one run of it give {wanted}"
            f"cell=LABEL: {', '.join(labels)}"
        )
    for key, value in chosen.items():
        if value not in ablation.grid[key]:
            raise InputError(f"{path}: grid.{key} has no value {quoted(value)}; it has {quoted(ablation.grid[key])}")
    point = tuple(chosen[key] for key in ablation.grid)
    return list(itertools.product(*ablation.grid.values())).index(point)


def tables_of_sweep(
    path: Path, sweep: str, overrides: Sequence[str] = (), json_file: Path | None = None
) -> list[Table]:
    """Evaluate the trials of a sweep that have ended, and put them into the tables that the ablation has.

    A row is a cell over its seeds; with ranges, a cell with one choice of values.

    Raises:
        InputError: there is no such trial in the runs of the ablation, or none has ended.
    """
    ablation, cells = read_ablation(path, overrides)
    runs = Path(cells[0].experiments[0].runs) / ablation.name
    every = sorted(file.parent for file in runs.glob(f"*/{FOLDER.format(sweep)}/*/*/experiment.yaml"))
    options = evaluation_options(path, ablation)
    evaluated: dict[str, list[dict[str, Any]]] = {}
    for folder in every:
        if not RunFolder(folder).finished.is_file():
            console.print(f"  {folder}: has not ended, left out")
            continue
        experiment = open_run(folder)[1]
        label = _label_of(folder.relative_to(runs).parts[0], experiment, ablation)
        found = run_and_evaluate(experiment, ablation.split, "the same command", options)
        evaluated.setdefault(label, []).append(found)
    if not evaluated:
        which = f"none of the {len(every)} trials of sweep {sweep!r} has ended" if every else f"no sweep {sweep!r}"
        raise InputError(f"{runs}: {which}; trials lie in CELL/sweep-ID/RUN/SEED below it, where the agent was started")
    name = f"{ablation.name}, sweep {sweep}"
    evaluated = {label: sorted(evaluated[label], key=lambda one: one["seed"]) for label in sorted(evaluated)}
    tables = [summary_table(name, evaluated)]
    if ablation.slices:
        tables.append(slice_table(name, evaluated, parse_slices(ablation.slices)))
    with atomic_write(runs / f"{FOLDER.format(sweep)}.md") as file:
        file.write("\n".join(map(render_markdown, tables)))
    if json_file is not None:
        cells_found = summarise(evaluated, parse_slices(ablation.slices))
        write_json(json_file, {"name": ablation.name, "sweep": sweep, "trials": len(every), "cells": cells_found})
    console.print(f"table: {runs / FOLDER.format(sweep)}.md")
    return tables


def _label_of(cell: str, experiment: Experiment, ablation: AblationFile) -> str:
    """A cell's label with the values that were chosen from ranges."""
    resolved = experiment.resolved()
    chosen = [f"{key.rpartition('.')[2]} {value_at(resolved, key.split('.')):.4g}" for key in ablation.ranges]
    return ", ".join([cell, *chosen])
