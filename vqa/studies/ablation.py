"""Grids of runs: every cell of a grid over a base experiment, several seeds each, ending in one table.

An ablation file:

    name: fusion
    base: experiments/demo/stacked_attention.yaml
    set: [training.epochs=5]              # optional: overrides for every run
    grid:
      fusion: [{name: concat}, {name: product}, {name: stacked_attention, hops: 1}]
    seeds: [0, 1, 2]
    split: val                            # optional: what the runs are evaluated on
    allow_seen: false                     # optional: also on questions or images they were trained on, stamped
    slices: ["count=^how many"]           # optional: kinds of questions (name=REGEX) for a second table

Where models need different settings, `cells` instead of `grid` names each one with its own overrides:

    cells:
      product: ["fusion={name: product}", training.optimizer.learning_rate=0.0003]
      attention: ["fusion={name: stacked_attention}"]
"""

import itertools
import shlex
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError

from vqa.errors import InputError, NonFiniteLossError, first_of, quoted, unknown_name
from vqa.evaluation.report.diagnostics import parse_slices
from vqa.experiment import Experiment, Section, Seed, check_overridden
from vqa.files import atomic_write, sha256_file, write_json
from vqa.overrides import Assignment, assign, override, parse_assignments, read_yaml, replace_at
from vqa.progress import console
from vqa.recipes import ABLATIONS_FIRST, experiment_file
from vqa.runs.evaluate import DEFAULTS, EvaluationOptions, evaluate_run
from vqa.runtime.deterministic import deterministic_algorithms
from vqa.runtime.device import choose_machine
from vqa.runtime.distributed import joined
from vqa.tables import Column, Row, Table, render_markdown
from vqa.training.needs import require_known_places, require_room, smallest_sizes
from vqa.training.run_folder import RunFolder, read_evaluation
from vqa.training.together import train_together
from vqa.training.train import train


class AblationFile(Section):
    """What an ablation file may say."""

    model_config = ConfigDict(populate_by_name=True)
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")
    base: str
    overrides: list[str] = Field(default=[], alias="set")
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default={})
    cells: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], list[str]] = Field(default={})
    seeds: list[Seed] = Field(default=[0], min_length=1)
    split: str = "val"
    allow_seen: bool = False
    slices: list[str] = Field(default=[])


@dataclass(frozen=True)
class Cell:
    """One point of the grid: its label and one experiment a seed."""

    label: str
    experiments: tuple[Experiment, ...]


def read_ablation(named: Path, overrides: Sequence[str] = ()) -> tuple[AblationFile, list[Cell]]:
    """Read an ablation and check every experiment of its grid before the first one runs.

    Args:
        named: a file, or the name of a recipe; so is the base that it names.
        overrides: `key.path=value` for the base experiment, after the file's own `set`.

    Raises:
        InputError: naming the file, the cell and the key.
    """
    path = experiment_file(named, ABLATIONS_FIRST)
    values = read_yaml(path)
    if "base" not in values and "fusion" in values:
        raise InputError(f"{path}: an experiment, not an ablation file (it names no base); `vqa train {named}` runs it")
    try:
        ablation = AblationFile.model_validate(values)
    except ValidationError as error:
        raise InputError(first_of(f"{path}: {_explain(item)}" for item in error.errors())) from None
    _check_grid(path, ablation)
    try:
        parse_slices(ablation.slices)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    base, given = (
        override(read_yaml(experiment_file(Path(ablation.base))), ablation.overrides),
        parse_assignments(overrides),
    )

    cells = []
    for label, changed in _cells(ablation, assign(base, given)):

        def with_overrides(some: Sequence[Assignment], seed: int, label: str = label, all_given: Any = changed) -> Any:
            cell = all_given if some is given else dict(_cells(ablation, assign(base, some)))[label]
            return cell | {"name": f"{ablation.name}/{label}", "seed": seed}

        seeds = [partial(with_overrides, seed=seed) for seed in ablation.seeds]
        checked = [check_overridden(values_with, given, f"{path} ({label})") for values_with in seeds]
        cells.append(Cell(label, tuple(checked)))
    return ablation, cells


def _explain(item: Any) -> str:
    """One pydantic error in words."""
    where = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return unknown_name("key", where, [field.alias or name for name, field in AblationFile.model_fields.items()])
    return (
        f"{where}: missing" if item["type"] == "missing" else f"{where}: {item['msg']} (it is {quoted(item['input'])})"
    )


def _cells(ablation: AblationFile, base: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each cell's label and its values, without name and seed."""
    for label, assignments in ablation.cells.items():
        yield label, override(base, assignments)
    labels: set[str] = set()
    for values in itertools.product(*ablation.grid.values()) if ablation.grid else ():
        label = _label(values)
        label = f"{label}_{len(labels)}" if label in labels else label
        labels.add(label)
        changed = dict(base)
        for key, value in zip(ablation.grid, values, strict=True):
            changed = replace_at(changed, key.split("."), value)
        yield label, changed


def _check_grid(path: Path, ablation: AblationFile) -> None:
    if bool(ablation.grid) == bool(ablation.cells):
        raise InputError(f"{path}: an ablation has either a grid or cells")
    if len(set(ablation.seeds)) < len(ablation.seeds):
        raise InputError(f"{path}: seeds: {ablation.seeds} names a seed twice; the same seed gives the same run")
    for key in ("name", "seed", "runs"):
        if key in ablation.grid:
            raise InputError(f"{path}: grid.{key}: cannot be a part of the grid; every run gets its own name and seed")


def _label(values: Sequence[Any]) -> str:
    """A cell's folder name: the names of its parts, with the options that were given."""
    parts = []
    for value in values:
        if isinstance(value, dict):
            options = [f"{key}{_plain(option)}" for key, option in value.items() if key != "name"]
            name = _plain(str(value.get("name", "")).replace("/", "_"))  # "hf:org/model" among them
            parts.append("_".join([name, *options]).strip("_"))
        else:
            parts.append(_plain(value))
    return "-".join(parts)


def _plain(value: Any) -> str:
    return "".join(letter if letter.isalnum() or letter in "._" else "" for letter in str(value))


def ablate(
    path: Path, overrides: Sequence[str] = (), json_file: Path | None = None, *, together: bool = False
) -> list[Table]:
    """Run what is not done yet of a grid, evaluate each run, and write tables of means and deviations.

    The tables, of tasks and answer types and, if asked for, of slices, go to `experiments/runs/<name>/ablation.md`,
    their numbers to `ablation.json` (and to `json_file`). A run that is finished and evaluated is not run again; an
    interrupted one goes on from where it stopped. One whose loss becomes NaN or infinite does not stop the others.

    Args:
        together: train the runs that see the same batches in one go (`vqa.training.together`).

    Raises:
        NonFiniteLossError: of the runs that failed, when all others are trained and evaluated; no table is written.
    """
    ablation, cells = read_ablation(path, overrides)
    command = shlex.join(["vqa", "ablate", str(path), *overrides])
    with joined() as group:
        group.agree(lambda: _check_models(path, cells))
        failed: dict[Path, str] = {}
        if together:
            every = [experiment for cell in cells for experiment in cell.experiments]
            failed = train_together(every, shlex.join([*shlex.split(command), "--together"]))
        evaluated, failed = _run_cells(ablation, cells, command, failed)
        if failed:
            total = sum(len(cell.experiments) for cell in cells)
            raise NonFiniteLossError("\n".join([f"{len(failed)} of {total} runs failed:", *failed.values()]))
        tables = [summary_table(ablation.name, evaluated)]
        if ablation.slices:
            tables.append(slice_table(ablation.name, evaluated, parse_slices(ablation.slices)))
        if group.is_first:
            _write(ablation, cells, evaluated, tables, json_file)
    return tables


def _check_models(path: Path, cells: list[Cell]) -> None:
    """Build each cell's model once without its weights: what does not fit is found before the first run.

    Raises:
        InputError: naming the file, the cell and the option, or what is too large for the memory that is free, or
            features that do not say where regions lie, which a fusion asks.
    """
    todo = [(cell, experiment) for cell in cells if (experiment := _first_to_train(cell)) is not None]
    exact = any(experiment.training.deterministic for _, experiment in todo)
    with deterministic_algorithms(exact, "auto"):  # what they need must be chosen before CUDA starts
        for cell, experiment in todo:
            if (sizes := smallest_sizes(experiment)) is None:
                continue
            machine = choose_machine(experiment.training.device, experiment.training.precision)
            try:
                require_room(experiment, sizes, machine.device, batch=1)
                require_known_places(experiment, sizes)
            except InputError as error:
                raise InputError(f"{path} ({cell.label}): {error}") from None


def _first_to_train(cell: Cell) -> Experiment | None:
    """The first run of a cell that is not finished; tables of finished ones need no memory and no GPU."""
    return next((one for one in cell.experiments if not RunFolder(one.folder).finished.is_file()), None)


def _run_cells(
    ablation: AblationFile, cells: list[Cell], command: str, failed: Mapping[Path, str]
) -> tuple[dict[str, list[dict[str, Any]]], dict[Path, str]]:
    """Train and evaluate one experiment after another, but those that failed before.

    Returns:
        What was found by label, and the folders of all that failed, each with what it said.
    """
    every = [(cell.label, experiment) for cell in cells for experiment in cell.experiments]
    options = EvaluationOptions(slices=parse_slices(ablation.slices), allow_seen=ablation.allow_seen)
    evaluated: dict[str, list[dict[str, Any]]] = {}
    failures = dict(failed)
    for number, (label, experiment) in enumerate(every, start=1):
        if experiment.folder in failures:
            continue
        console.rule(f"{number} of {len(every)}: {label}, seed {experiment.seed}")
        try:
            found = run_and_evaluate(experiment, ablation.split, command, options)
        except NonFiniteLossError as error:
            failures[experiment.folder] = str(error)
            console.print(f"FAILED, the others go on: {error}")
        else:
            evaluated.setdefault(label, []).append(found)
    return evaluated, failures


def _write(
    ablation: AblationFile,
    cells: list[Cell],
    evaluated: dict[str, list[dict[str, Any]]],
    tables: Sequence[Table],
    json_file: Path | None,
) -> None:
    """The tables, and their numbers as JSON."""
    folder = Path(cells[0].experiments[0].runs) / ablation.name
    with atomic_write(folder / "ablation.md") as file:
        file.write("\n".join(map(render_markdown, tables)))
    summary = {"name": ablation.name, "seeds": ablation.seeds, **_circumstances(evaluated)}
    summary["cells"] = summarise(evaluated, parse_slices(ablation.slices))
    for target in [folder / "ablation.json", *([json_file] if json_file else [])]:
        write_json(target, summary)
    console.print(f"table: {folder / 'ablation.md'}, numbers: {folder / 'ablation.json'}")


def run_and_evaluate(
    experiment: Experiment, split: str, command: str, options: EvaluationOptions = DEFAULTS
) -> dict[str, Any]:
    """Train and evaluate one experiment, or read what an earlier call found.

    Raises:
        InputError: when it was trained on what it is to be evaluated on, unless that is allowed.
    """
    folder = RunFolder(experiment.folder)
    with joined() as group:
        resume = group.from_first(folder.state.is_file)
        train(experiment, resume=resume, command=command)
        if not group.from_first(lambda: _is_evaluated(folder, split, options)):
            # the run is of this experiment, which is the user's: so is the code that it names
            evaluate_run(folder.path, split, replace(options, allow_code=True))
        evaluation: dict[str, Any] = group.from_first(lambda: read_evaluation(folder.evaluation(split)))
    return evaluation


def _is_evaluated(folder: RunFolder, split: str, options: EvaluationOptions) -> bool:
    """Whether there are accuracies of the weights as they are now, in every task and slice that is asked for."""
    if not folder.evaluation(split).is_file():
        return False
    found = read_evaluation(folder.evaluation(split))
    made = (found.get("task"), found.get("protocol"), found.get("choices_outside"), found.get("weights_sha256"))
    allowed = options.allow_seen or not found.get("seen_in_training", {}).get("contaminated")
    sliced = {one["name"]: one.get("pattern") for one in (found.get("beyond_accuracy") or {}).get("slices", [])}
    wanted = (options.task, options.protocol, options.choices_outside, sha256_file(folder.model))
    return allowed and made == wanted and options.slices.items() <= sliced.items()


def summarise(evaluated: dict[str, list[dict[str, Any]]], slices: Iterable[str] = ()) -> dict[str, Any]:
    """Mean and standard deviation (n - 1; None for one seed) over seeds of every accuracy of every cell."""
    wanted = list(slices)
    cells: dict[str, Any] = {}
    for label, evaluations in evaluated.items():
        figures: dict[str, list[float]] = {}
        for evaluation in evaluations:
            for name, value in (flat_accuracies(evaluation) | slice_accuracies(evaluation, wanted)).items():
                figures.setdefault(name, []).append(value)
        cells[label] = {
            name: {
                "mean": statistics.fmean(values),
                "std": statistics.stdev(values) if len(values) > 1 else None,
                "runs": values,
            }
            for name, values in figures.items()
        }
    return cells


def flat_accuracies(evaluation: dict[str, Any]) -> dict[str, float]:
    """Both tasks' accuracies as "open-ended", "open-ended, number", …, in percent."""
    flat: dict[str, float] = {}
    for key, title in (("open_ended", "open-ended"), ("multiple_choice", "multiple-choice")):
        accuracy = evaluation["accuracy"].get(key)
        if accuracy is not None:
            flat[title] = accuracy["overall"]
            flat |= {f"{title}, {kind}": value for kind, value in accuracy["per_answer_type"].items()}
    return flat


def slice_accuracies(evaluation: dict[str, Any], names: Sequence[str]) -> dict[str, float]:
    """Open-ended accuracies in percent of the named slices that hold a question, as "slice: count"."""
    found = {one["name"]: one["accuracy"] for one in evaluation["beyond_accuracy"]["slices"]} if names else {}
    return {_slice_figure(name): found[name] for name in names if found[name] is not None}


def _slice_figure(name: str) -> str:
    return f"slice: {name}"


def _circumstances(evaluated: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What the numbers are of: split, protocol, and what of it the runs were trained or chosen on."""
    every = [run for cell in evaluated.values() for run in cell]
    return {
        "data": every[0]["data"],
        "questions": every[0]["questions"],
        "protocol": every[0]["protocol"],
        "seen_in_training": sorted({stamp for run in every if (stamp := run["seen_in_training"]["stamp"])}),
        "model_choice": sorted({choice for run in every if (choice := run["model_choice"])}),
    }


def summary_table(name: str, evaluated: dict[str, list[dict[str, Any]]]) -> Table:
    """The table that people read: one row a cell, mean ± standard deviation over seeds."""
    cells = summarise(evaluated)
    figures = list(dict.fromkeys(figure for cell in cells.values() for figure in cell))
    columns = tuple(
        Column(kind or "all", task.capitalize()) for task, _, kind in (one.partition(", ") for one in figures)
    )
    return _table(f"Ablation {name}", evaluated, _rows(cells, figures), columns)


def slice_table(name: str, evaluated: dict[str, list[dict[str, Any]]], patterns: Mapping[str, str]) -> Table:
    """The same of open-ended accuracy on the slices, whose regular expressions stand below the names."""
    first = next(iter(evaluated.values()))[0]
    count = {one["name"]: one["count"] for one in first["beyond_accuracy"]["slices"]}
    columns = tuple(Column(label, f"{count[label]:,} questions") for label in patterns)
    rows = _rows(summarise(evaluated, patterns), [_slice_figure(label) for label in patterns])
    table = _table(f"Ablation {name}: kinds of questions, open-ended", evaluated, rows, columns)
    named = "; ".join(f"{label}: /{pattern}/" for label, pattern in patterns.items())
    return replace(table, caption=f"{table.caption} Kinds by regular expression: {named}.")


def _rows(cells: dict[str, Any], figures: Sequence[str]) -> tuple[Row, ...]:
    """Mean and deviation of the figures of each cell."""
    rows = []
    for label, cell in cells.items():
        found = [cell.get(figure) for figure in figures]
        means = tuple(one["mean"] if one else None for one in found)
        rows.append(Row(label, means, spread=tuple(one["std"] if one else None for one in found)))
    return tuple(rows)


def _table(
    title: str, evaluated: dict[str, list[dict[str, Any]]], rows: tuple[Row, ...], columns: tuple[Column, ...]
) -> Table:
    """With all that the numbers depend on in title and caption."""
    of = _circumstances(evaluated)
    seeds = ", ".join(str(run["seed"]) for run in next(iter(evaluated.values())))
    caption = (
        f"VQA accuracy in percent on {of['data']} ({of['questions']:,} questions), protocol {of['protocol']}; "
        f"mean ± standard deviation over seeds {seeds}."
    )
    stamped = " ".join([title, *(f"({stamp})" for stamp in of["seen_in_training"])])
    return Table(stamped, " ".join([caption, *(f"{choice}." for choice in of["model_choice"])]), columns, rows)
