"""What `ablation.html` shows of an ablation."""

import math
from collections.abc import Mapping
from typing import Any

from vqa.errors import InputError
from vqa.evaluation.report.ablation import AblationPage, Band, Bar, Point
from vqa.evaluation.report.changes import ChangeGroup
from vqa.progress import console
from vqa.studies.comparison.compare import changes_between
from vqa.studies.grid import Ablation, Cell
from vqa.studies.table.against import options_of, runs_of
from vqa.studies.table.costs import Measured
from vqa.studies.table.figures import OPEN_ENDED, bounds, circumstances, summarise
from vqa.studies.table.results import Results
from vqa.tables import below_floor
from vqa.training.run_folder import RunFolder, is_step, read_metrics

SHOWN = 4  # questions of each kind of change
ACCURACY = "val/open_ended/overall"  # of an epoch, in metrics.jsonl


def ablation_page(ablation: Ablation, results: Results, measured: Measured) -> AblationPage:
    """The page of what is there."""
    means = {label: cell[OPEN_ENDED] for label, cell in summarise(results.evaluated).items() if OPEN_ENDED in cell}
    curves = [band for cell in ablation.cells if (band := _band(cell)) is not None]
    return AblationPage(
        f"Ablation {results.name}", _summary(results, means), tuple(results.page_tables(measured)),
        _costs(results, means, measured), _types(results), tuple(curves), _facts(ablation, results),
        _changes(ablation, results, means),
    )  # fmt: skip


def _changes(ablation: Ablation, results: Results, means: Mapping[str, Any]) -> tuple[ChangeGroup, ...]:
    """Questions that the baseline and the best of the others answer differently; none where none are compared."""
    others = {label: means[label]["mean"] for label in results.differences() if label in means}
    if results.baseline is None or not others:
        return ()
    best, runs = max(others, key=others.__getitem__), runs_of(ablation, results.evaluated)
    try:
        return changes_between({label: runs[label] for label in (results.baseline, best)}, options_of(ablation, SHOWN))
    except InputError as error:
        console.print(f"no questions on the page: {error}")
        return ()


def _summary(results: Results, means: Mapping[str, Any]) -> tuple[str, ...]:
    of = circumstances(results.evaluated)
    floors = {name: found[OPEN_ENDED] for name, found in bounds(results.evaluated, "floors").items()
              if OPEN_ENDED in found}  # fmt: skip
    said = [f"{stamp}. These numbers are no test." for stamp in of["seen_in_training"]]
    said += results.conclusions() or [results.bold_note()]
    below = [f"{label} ({found['mean']:.2f}%)" for label, found in means.items() if below_floor(found["mean"], floors)]
    if below:
        name = max(floors, key=floors.__getitem__)
        said.append(f"Below a floor, the {name} ({floors[name]:.2f}%): {', '.join(below)}.")
    return (*said, *(f"{choice}." for choice in of["model_choice"]))


def _costs(
    results: Results, means: Mapping[str, Any], measured: Measured
) -> tuple[tuple[str, str, tuple[Point, ...]], ...]:
    """Accuracy against operations, and against the minutes of a training."""
    operations = {label: cost.get("forward_flops") for label, cost in results.costs.items()}
    seconds = {label: cost.get("seconds") for label, cost in measured.items()}
    found = []
    for heading, unit, costs, scale in (
        ("Operations", "MFLOP a question, forward", operations, 1e6),
        ("Time", "minutes of training", seconds, 60),
    ):
        points = tuple(
            Point(label, cost / scale, one["mean"], one["std"])
            for label, one in means.items()
            if (cost := costs.get(label)) is not None
        )
        if points:
            found.append((heading, unit, points))
    return tuple(found)


def _types(results: Results) -> tuple[tuple[str, tuple[Bar, ...]], ...]:
    return tuple(
        (
            f"{name} ({one['questions']:,} questions)",
            tuple(Bar(label, cell["mean"], cell["low"], cell["high"]) for label, cell in one["cells"].items()),
        )
        for name, one in results.statistics.get("types", {}).items()
    )


def _band(cell: Cell) -> Band | None:
    """Validation accuracy by epoch over the seeds that reached it."""
    by_epoch: dict[float, list[float]] = {}
    for experiment in cell.experiments:
        try:
            rows = read_metrics(RunFolder(experiment.folder).metrics)
        except InputError:
            continue
        for row in rows:
            value = row.get(ACCURACY)
            if not is_step(row) and isinstance(value, int | float) and math.isfinite(value):
                by_epoch.setdefault(row["epoch"], []).append(value)
    if not by_epoch:
        return None
    epochs = sorted(by_epoch)
    values = [by_epoch[epoch] for epoch in epochs]
    means = [sum(some) / len(some) for some in values]
    return Band(cell.label, epochs, means, list(map(min, values)), list(map(max, values)))


def _facts(ablation: Ablation, results: Results) -> tuple[tuple[str, str], ...]:
    of = circumstances(results.evaluated)
    differences = results.differences()
    return (
        ("data", f"{of['data']}, {of['questions']:,} questions"),
        ("protocol", str(of["protocol"])),
        ("weights", "; ".join(of["model_choice"])),
        ("seeds", ", ".join(map(str, results.seeds))),
        ("baseline", results.baseline or "none"),
        *((("intervals", results.difference_caption()),) if differences else ()),
        ("file", str(ablation.path)),
        *((("failed", "\n".join(f"{label}, seed {seed}: {said}" for label, cell in results.failed.items()
                                for seed, said in cell.items())),) if results.failed else ()),
    )  # fmt: skip
