"""The tables of an ablation; columns have one order everywhere: runs, accuracies, differences, costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vqa.evaluation.statistics.differences import FEW_SEEDS
from vqa.studies.table.costs import Measured
from vqa.studies.table.figures import OPEN_ENDED, Evaluated, bounds, circumstances, slice_figure, summarise
from vqa.tables import Column, Kind, Row, Table

Failed = Mapping[str, Mapping[int, str]]
DIFFERENCE = (
    Column("points", "Difference"), Column("from", "Difference"), Column("to", "Difference"),
    Column("p, Holm", "Difference", decimals=4),
)  # fmt: skip
COUNTED = (Column("million parameters", "Cost", decimals=3), Column("MFLOP a question", "Cost", decimals=3))
MEASURED = (
    Column("questions/s", "Cost", decimals=0), Column("GiB", "Cost"), Column("minutes", "Cost", decimals=1),
)  # fmt: skip
COUNTED_OF = "Parameters and operations are counted of the experiment: the forward pass, matrix products alone."
MEASURED_OF = (
    "Speed, memory and time are of training, the mean over runs, on whatever machine did it; memory is that of the "
    "process or the GPU."
)


@dataclass(frozen=True)
class Results:
    """All that the tables of an ablation are made of.

    Attributes:
        name: the ablation's.
        seeds: those of the file.
        evaluated: by cell, the evaluations that are there.
        failed: by cell and seed, what ended a run.
        slices: kinds of questions, name to regular expression.
        baseline: the cell that others are compared with, or None.
        statistics: see `vqa.studies.table.against.statistics_of`; empty while they are not made.
        costs: see `vqa.studies.table.costs.counted_costs`; cells that are not counted yet are not there.
    """

    name: str
    seeds: Sequence[int]
    evaluated: Evaluated
    failed: Failed = field(default_factory=dict)
    slices: Mapping[str, str] = field(default_factory=dict)
    baseline: str | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)
    costs: Mapping[str, Any] = field(default_factory=dict)

    def tables(self) -> list[Table]:
        """Those that any worker writes alike: accuracies, slices, differences, and what costs can be counted."""
        found = [self.accuracies()]
        if self.slices:
            found.append(slice_table(self.name, self.evaluated, self.slices, self.seeds))
        if self.differences():
            found.append(self._difference_table())
        if self.costs:
            rows = tuple(Row(label, self._counted(label)) for label in self.evaluated)
            found.append(Table(f"Ablation {self.name}: cost", COUNTED_OF, COUNTED, rows, best="none"))
        return found

    def page_tables(self, measured: Measured) -> list[Table]:
        """The same for the page, with all costs in one."""
        found = self.tables()
        if not self.costs:
            return found
        rows = tuple(Row(label, (*self._counted(label), *_measured(measured, label))) for label in self.evaluated)
        caption = f"{COUNTED_OF} {MEASURED_OF}"
        return [*found[:-1], replace(found[-1], columns=(*COUNTED, *MEASURED), rows=rows, caption=caption)]

    def accuracies(self) -> Table:
        """Mean ± deviation of every accuracy, floors and ceilings below."""
        return summary_table(self.name, self.evaluated, self.seeds, self.failed, self._best(), self.bold_note())

    def measured_table(self, measured: Measured) -> list[Table]:
        """Speed, memory and time, for the terminal."""
        rows = tuple(Row(label, _measured(measured, label)) for label in self.evaluated)
        if all(value is None for row in rows for value in row.values):
            return []
        return [Table(f"Ablation {self.name}: measured", MEASURED_OF, MEASURED, rows, best="none")]

    def wide(self, measured: Measured) -> Table:
        """All in one, for CSV, LaTeX and the page."""
        narrow = self.accuracies()
        columns = (Column("runs", decimals=0), *narrow.columns, *DIFFERENCE, *COUNTED, *MEASURED)
        rows = []
        labels = [*self.evaluated, *([None] * (len(narrow.rows) - len(self.evaluated)))]
        for label, row in zip(labels, narrow.rows, strict=True):
            more: tuple[float | None, ...] = (None,) * (len(columns) - 1 - len(row.values))
            runs = None
            if label is not None:
                more = (*self._difference(label), *self._counted(label), *_measured(measured, label))
                runs = len(self.evaluated[label])
            spread = (None, *row.spread, *(None for _ in more)) if row.spread else ()
            rows.append(Row(label or row.name, (runs, *row.values, *more), spread, row.kind))
        bold = frozenset((r, c + 1) for r, c in narrow.bold)
        said = " ".join(filter(None, [narrow.caption, self.difference_caption()]))
        return replace(narrow, columns=columns, rows=tuple(rows), bold=bold, caption=said)

    def as_json(self) -> dict[str, Any]:
        """The content of `ablation.json`; nothing in it is a time or a rate."""
        return {
            "name": self.name,
            "seeds": self.seeds,
            **circumstances(self.evaluated),
            "runs": {
                label: {"done": [run["seed"] for run in done], "failed": self.failed.get(label, {})}
                for label, done in self.evaluated.items()
            },
            "cells": summarise(self.evaluated, self.slices),
            "floors": bounds(self.evaluated, "floors"),
            "ceilings": bounds(self.evaluated, "ceilings"),
            "baseline": self.baseline,
            "statistics": self.statistics,
            "costs": self.costs,
        }

    def differences(self) -> dict[str, dict[str, Any]]:
        """By cell, its difference from the baseline; empty where there is none."""
        cells = self.statistics.get("cells", {})
        return {label: one["difference"] for label, one in cells.items() if one["difference"]}

    def conclusions(self) -> list[str]:
        """What may be concluded, in sentences."""
        groups: dict[str, list[str]] = {}
        for label, one in self.differences().items():
            if one["low"] is None:
                continue
            side = "above" if one["points"] > 0 else "below"
            verdict = (
                f"Surely {side} {self.baseline}" if one["sure"] else f"No evidence of a difference to {self.baseline}"
            )
            numbers = f"{one['points']:+.2f} points, {one['low']:+.2f} to {one['high']:+.2f}"
            groups.setdefault(verdict, []).append(f"{label} ({numbers})")
        return [f"{verdict}: {', '.join(cells)}." for verdict, cells in sorted(groups.items(), reverse=True)]

    def _best(self) -> str | None:
        """The cell with the greatest mean, where it surely is above the baseline."""
        means = {
            label: cell[OPEN_ENDED]["mean"] for label, cell in summarise(self.evaluated).items() if OPEN_ENDED in cell
        }
        best = max(means, key=means.__getitem__, default="")
        found = self.differences().get(best)
        return best if found and found["sure"] and found["points"] > 0 else None

    def bold_note(self) -> str:
        """Why something is bold, or why nothing is."""
        if self.baseline is None:
            return (
                "Nothing is bold: the file names no baseline, so nothing says which differences are more than chance."
            )
        if self.statistics.get("left_out"):
            return f"Nothing is bold: no comparison with {self.baseline}, as {self.statistics['left_out']}."
        if not self.differences():
            return f"Nothing is bold: the comparison with {self.baseline} is made when the last run is done."
        if self._best() is None:
            return (
                f"Nothing is bold: the greatest mean is that of {self.baseline} itself, or of a cell whose difference "
                "from it may be chance."
            )
        return (
            f"Bold: the greatest mean, whose 95% interval against {self.baseline} excludes 0 (p by Holm at most 0.05); "
            "that does not say that it is above the second."
        )

    def _difference(self, label: str) -> tuple[float | None, ...]:
        one = self.differences().get(label)
        return (one["points"], one["low"], one["high"], one["p_holm"]) if one else (None,) * len(DIFFERENCE)

    def _counted(self, label: str) -> tuple[float | None, ...]:
        cost = self.costs.get(label, {})
        values = (cost.get("parameters"), cost.get("forward_flops"))
        return tuple(None if value is None else value / 1e6 for value in values)

    def difference_caption(self) -> str:
        """What the differences are of."""
        found = self.differences()
        if not found:
            return ""
        methods = all(one["over_seeds"] for one in found.values())
        kind = "methods (seeds and images)" if methods else "trained models (images alone; other seeds are not known)"
        said = (
            f"Differences from {self.baseline} in percentage points, open-ended, with the 95% interval of the {kind}; "
            f"p by Holm for {len(found)} comparison{'s' if len(found) > 1 else ''}."
        )
        few = methods and any(min(one["seeds"]) < FEW_SEEDS for one in found.values())
        return said + (f" Of two runs an interval is unreliable: train {FEW_SEEDS} or more." if few else "")

    def _difference_table(self) -> Table:
        cells = self.statistics["cells"]
        named = [replace(column, group="") for column in DIFFERENCE]  # one narrow table on a terminal
        columns = (Column("runs", decimals=0), Column("accuracy"), *named)
        rows = [
            Row(label, (one["runs"], one["mean"], *self._difference(label)), (None, one["deviation"], *[None] * 4))
            for label, one in cells.items()
        ]
        best = self._best()
        bold = frozenset((place, 1) for place, label in enumerate(cells) if label == best)
        title = f"Ablation {self.name}: against {self.baseline}"
        return Table(title, self.difference_caption(), columns, tuple(rows), best="none", bold=bold)


def _measured(measured: Measured, label: str) -> tuple[float | None, ...]:
    found = measured.get(label, {})
    seconds = found.get("seconds")
    return (found.get("questions_per_second"), found.get("memory_gib"), None if seconds is None else seconds / 60)


def summary_table(
    name: str,
    evaluated: Evaluated,
    seeds: Sequence[int] = (),
    failed: Failed | None = None,
    best: str | None = None,
    bold_note: str = "Nothing is bold: nothing says which differences are more than chance.",
) -> Table:
    """The table that people read: one row a cell, mean ± standard deviation over seeds, then floors and ceilings.

    Args:
        evaluated: by label; a cell without any has a row of dashes.
        seeds: those of the file; a row that has fewer says so.
        failed: by label and seed, what ended a run that has no evaluation; the messages stand below the table.
        best: the cell whose open-ended accuracy is bold.
        bold_note: why it is, or why nothing is.
    """
    failed = failed or {}
    cells = summarise(evaluated)
    figures = list(dict.fromkeys(figure for cell in cells.values() for figure in cell))
    columns = tuple(
        Column(kind or "all", task.capitalize().replace("-choice", " choice"))
        for task, _, kind in (one.partition(", ") for one in figures)
    )
    names = {label: _row_name(label, len(done), len(seeds), failed) for label, done in evaluated.items()}
    rows = (*_rows(cells, figures, names), *_bound_rows(evaluated, figures))
    table = _table(f"Ablation {name}", evaluated, rows, columns, seeds)
    messages = [f"{label}, seed {seed}: {said}" for label, cell in failed.items() for seed, said in cell.items()]
    bold = frozenset({(list(cells).index(best), figures.index(OPEN_ENDED))} if best in cells else ())
    note = "\n".join(["Failed:", *messages]) if messages else ""
    return replace(table, note=note, best="none", bold=bold, caption=f"{table.caption} {bold_note}")


def _bound_rows(evaluated: Evaluated, figures: Sequence[str]) -> list[Row]:
    kinds: tuple[tuple[Kind, str], ...] = (("floor", "floors"), ("ceiling", "ceilings"))
    return [
        Row(name, tuple(found.get(figure) for figure in figures), kind=kind)
        for kind, key in kinds
        for name, found in bounds(evaluated, key).items()
        if any(figure in found for figure in figures)
    ]


def slice_table(name: str, evaluated: Evaluated, patterns: Mapping[str, str], seeds: Sequence[int] = ()) -> Table:
    """The same of open-ended accuracy on the slices, whose regular expressions stand below the names."""
    first = next(run for cell in evaluated.values() for run in cell)
    count = {one["name"]: one["count"] for one in first["beyond_accuracy"]["slices"]}
    columns = tuple(Column(label, f"{count[label]:,} questions") for label in patterns)
    names = {label: _row_name(label, len(done), len(seeds), {}) for label, done in evaluated.items()}
    rows = _rows(summarise(evaluated, patterns), [slice_figure(label) for label in patterns], names)
    table = _table(f"Ablation {name}: kinds of questions, open-ended", evaluated, rows, columns, seeds)
    named = "; ".join(f"{label}: /{pattern}/" for label, pattern in patterns.items())
    return replace(table, caption=f"{table.caption} Kinds by regular expression: {named}.")


def _row_name(label: str, done: int, wanted: int, failed: Failed) -> str:
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
    title: str, evaluated: Evaluated, rows: tuple[Row, ...], columns: tuple[Column, ...], seeds: Sequence[int]
) -> Table:
    """With all that the numbers depend on in title and caption."""
    of = circumstances(evaluated)
    seeds = seeds or list(dict.fromkeys(run["seed"] for cell in evaluated.values() for run in cell))
    caption = (
        f"VQA accuracy in percent on {of['data']} ({of['questions']:,} questions), protocol {of['protocol']}; "
        f"mean ± standard deviation over seeds {', '.join(map(str, seeds))} (n = {len(seeds)})."
    )
    stamped = " ".join([title, *(f"({stamp})" for stamp in of["seen_in_training"])])
    said = " ".join([caption, *(f"{choice}." for choice in of["model_choice"])])
    return Table(stamped, said, columns, rows, best="none")
