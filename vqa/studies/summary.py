"""The tables of an ablation, made of what its runs have left in their folders, whoever ran them and in what order."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vqa.errors import InputError
from vqa.files import atomic_write, read_json, sha256_unless_read, write_json
from vqa.locks import Lease
from vqa.runs.evaluate import EvaluationOptions
from vqa.studies.grid import Ablation, CellRun
from vqa.tables import Column, Row, Table, render_markdown
from vqa.training.run_folder import RunFolder, read_evaluation

FAILED = "failed.json"  # in a run folder: what ended its training or evaluation before its time
LEASE = ".tables.lease"  # in an ablation's folder: one process at a time reads the runs and writes the tables


@dataclass
class Found:
    """What the runs of an ablation have left.

    Attributes:
        evaluated: by label, the evaluations that are there, in the order of the file's seeds.
        failed: by label and seed, what a run that has none ended with.
        missing: runs that have neither.
    """

    evaluated: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failed: dict[str, dict[int, str]] = field(default_factory=dict)
    missing: list[CellRun] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """A line each."""
        return [message for of_cell in self.failed.values() for message in of_cell.values()]

    @property
    def count(self) -> int:
        """How many runs are evaluated."""
        return sum(map(len, self.evaluated.values()))


def collect(ablation: Ablation) -> Found:
    """Read what is there of each run: the evaluation of its weights as they are now, or what it failed with."""
    found, split, options = Found(), ablation.file.split, wanted_evaluation(ablation)
    for cell in ablation.cells:
        found.evaluated[cell.label] = []
        for run in (CellRun(cell.label, experiment) for experiment in cell.experiments):
            try:
                evaluation, failure = evaluation_of(run.folder, split, options), failure_of(run.folder)
            except InputError as error:  # damaged files
                evaluation, failure = None, str(error)
            if evaluation is not None:
                found.evaluated[cell.label].append(evaluation)
            elif failure is not None:
                found.failed.setdefault(cell.label, {})[run.experiment.seed] = failure
            else:
                found.missing.append(run)
    return found


def wanted_evaluation(ablation: Ablation) -> EvaluationOptions:
    """How the runs of an ablation are evaluated."""
    return EvaluationOptions(slices=ablation.slices, allow_seen=ablation.file.allow_seen)


def evaluation_of(folder: RunFolder, split: str, options: EvaluationOptions) -> dict[str, Any] | None:
    """The accuracies of a finished run's weights, in every task and slice that is asked for; None where they are not.

    Raises:
        InputError: the file is damaged.
    """
    if not (folder.finished.is_file() and folder.evaluation(split).is_file()):
        return None
    found = read_evaluation(folder.evaluation(split))
    made = (found.get("task"), found.get("protocol"), found.get("choices_outside"), found.get("weights_sha256"))
    allowed = options.allow_seen or not found.get("seen_in_training", {}).get("contaminated")
    sliced = {one["name"]: one.get("pattern") for one in (found.get("beyond_accuracy") or {}).get("slices", [])}
    wanted = (options.task, options.protocol, options.choices_outside, sha256_unless_read(folder.model))
    return found if allowed and made == wanted and options.slices.items() <= sliced.items() else None


def failure_of(folder: RunFolder) -> str | None:
    """What a run last failed with, where it has not been taken up again."""
    path = folder.path / FAILED
    try:
        return str(read_json(path, dict[str, Any]).get("error")) if path.is_file() else None
    except InputError as error:
        return str(error)


def write_failure(folder: RunFolder, error: Exception) -> None:
    """Leave word of a failure for the tables, and for others who work on the same ablation."""
    write_json(folder.path / FAILED, {"error": str(error), "kind": type(error).__name__})


def write_tables(ablation: Ablation, json_file: Path | None = None) -> tuple[Found, list[Table]]:
    """Write `ablation.md` and `ablation.json` of what is there now; nothing where no run is evaluated yet.

    Args:
        json_file: another place for the numbers.
    """
    ablation.folder.mkdir(parents=True, exist_ok=True)
    with Lease(ablation.folder / LEASE).held():  # who writes last has read last
        found = collect(ablation)
        if not found.count:
            return found, []
        name, seeds = ablation.file.name, ablation.file.seeds
        tables = [summary_table(name, found.evaluated, seeds, found.failed)]
        if ablation.slices:
            tables.append(slice_table(name, found.evaluated, ablation.slices, seeds))
        with atomic_write(ablation.folder / "ablation.md") as file:
            file.write("\n".join(map(render_markdown, tables)))
        summary = {"name": name, "seeds": seeds, **_circumstances(found.evaluated)}
        summary["runs"] = {
            label: {"done": [run["seed"] for run in done], "failed": found.failed.get(label, {})}
            for label, done in found.evaluated.items()
        }
        summary["cells"] = summarise(found.evaluated, ablation.slices)
        for target in [ablation.folder / "ablation.json", *([json_file] if json_file else [])]:
            write_json(target, summary)
    return found, tables


def summarise(evaluated: Mapping[str, list[dict[str, Any]]], slices: Iterable[str] = ()) -> dict[str, Any]:
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


def _circumstances(evaluated: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What the numbers are of: split, protocol, and what of it the runs were trained or chosen on."""
    every = [run for cell in evaluated.values() for run in cell]
    return {
        "data": every[0]["data"],
        "questions": every[0]["questions"],
        "protocol": every[0]["protocol"],
        "seen_in_training": sorted({stamp for run in every if (stamp := run["seen_in_training"]["stamp"])}),
        "model_choice": sorted({choice for run in every if (choice := run["model_choice"])}),
    }


def summary_table(
    name: str,
    evaluated: Mapping[str, list[dict[str, Any]]],
    seeds: Sequence[int] = (),
    failed: Mapping[str, Mapping[int, str]] | None = None,
) -> Table:
    """The table that people read: one row a cell, mean ± standard deviation over seeds.

    Args:
        evaluated: by label; a cell without any has a row of dashes.
        seeds: those of the file; a row that has fewer says so.
        failed: by label and seed, what ended a run that has no evaluation; the messages stand below the table.
    """
    failed = failed or {}
    cells = summarise(evaluated)
    figures = list(dict.fromkeys(figure for cell in cells.values() for figure in cell))
    columns = tuple(
        Column(kind or "all", task.capitalize()) for task, _, kind in (one.partition(", ") for one in figures)
    )
    names = {label: _row_name(label, len(done), len(seeds), failed) for label, done in evaluated.items()}
    table = _table(f"Ablation {name}", evaluated, _rows(cells, figures, names), columns, seeds)
    messages = [f"{label}, seed {seed}: {said}" for label, cell in failed.items() for seed, said in cell.items()]
    return replace(table, note="\n".join(["Failed:", *messages]) if messages else "")


def slice_table(
    name: str, evaluated: Mapping[str, list[dict[str, Any]]], patterns: Mapping[str, str], seeds: Sequence[int] = ()
) -> Table:
    """The same of open-ended accuracy on the slices, whose regular expressions stand below the names."""
    first = next(run for cell in evaluated.values() for run in cell)
    count = {one["name"]: one["count"] for one in first["beyond_accuracy"]["slices"]}
    columns = tuple(Column(label, f"{count[label]:,} questions") for label in patterns)
    names = {label: _row_name(label, len(done), len(seeds), {}) for label, done in evaluated.items()}
    rows = _rows(summarise(evaluated, patterns), [_slice_figure(label) for label in patterns], names)
    table = _table(f"Ablation {name}: kinds of questions, open-ended", evaluated, rows, columns, seeds)
    named = "; ".join(f"{label}: /{pattern}/" for label, pattern in patterns.items())
    return replace(table, caption=f"{table.caption} Kinds by regular expression: {named}.")


def _row_name(label: str, done: int, wanted: int, failed: Mapping[str, Mapping[int, str]]) -> str:
    """A cell's name, with the number of its runs where some are missing: "product (n = 1 of 3, 1 failed)"."""
    if done >= wanted:
        return label
    return f"{label} (n = {done} of {wanted}{f', {len(failed[label])} failed' if label in failed else ''})"


def _rows(cells: Mapping[str, Any], figures: Sequence[str], names: Mapping[str, str]) -> tuple[Row, ...]:
    """Mean and deviation of the figures of each cell."""
    rows = []
    for label, cell in cells.items():
        found = [cell.get(figure) for figure in figures]
        means = tuple(one["mean"] if one else None for one in found)
        rows.append(Row(names[label], means, spread=tuple(one["std"] if one else None for one in found)))
    return tuple(rows)


def _table(
    title: str,
    evaluated: Mapping[str, list[dict[str, Any]]],
    rows: tuple[Row, ...],
    columns: tuple[Column, ...],
    seeds: Sequence[int],
) -> Table:
    """With all that the numbers depend on in title and caption."""
    of = _circumstances(evaluated)
    seeds = seeds or list(dict.fromkeys(run["seed"] for cell in evaluated.values() for run in cell))
    caption = (
        f"VQA accuracy in percent on {of['data']} ({of['questions']:,} questions), protocol {of['protocol']}; "
        f"mean ± standard deviation over seeds {', '.join(map(str, seeds))} (n = {len(seeds)})."
    )
    stamped = " ".join([title, *(f"({stamp})" for stamp in of["seen_in_training"])])
    return Table(stamped, " ".join([caption, *(f"{choice}." for choice in of["model_choice"])]), columns, rows)
