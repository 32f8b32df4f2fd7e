"""Results files side by side: each by each metric, between floors and ceilings, with intervals and differences.

Legend: `N` questions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import QADataset
from vqa.evaluation.accuracy import mean_percent, means_by_type, round_percent
from vqa.evaluation.metrics import Metric
from vqa.evaluation.metrics.bounds import Bound
from vqa.evaluation.metrics.suites import Suite
from vqa.evaluation.scores import TYPE_PRIOR, type_order
from vqa.evaluation.statistics.differences import SystemStatistics, compare_systems
from vqa.evaluation.statistics.resampling import bootstrap_interval
from vqa.tables import Column, Kind, Row, Table, below_floor

Values = Mapping[str, NDArray[np.float64]]  # by metric, each question's, 0..1
MOST_TYPES = 6  # answer types that a table has columns for
LEVEL = "95%"


@dataclass(frozen=True)
class Scoreboard:
    """What results files score on one split.

    Attributes:
        dataset: the questions that were scored.
        metrics: by which, the first leads.
        files: each file's value of every question, by file and metric.
        bounds: floors and ceilings.
        task: "open-ended" or "multiple-choice".
        share: of the split's questions, 0..1; below 1 where only a part was scored.
        remarks: sentences on what the figures hide.
        suites: by file, metrics of the whole set.
    """

    dataset: QADataset
    metrics: tuple[Metric, ...]
    files: Mapping[str, Values]
    bounds: tuple[Bound, ...]
    task: str
    share: float = 1.0
    remarks: tuple[str, ...] = ()
    suites: Mapping[str, tuple[Suite, ...]] = field(default_factory=dict)

    @property
    def lead(self) -> Metric:
        """The metric that intervals and types are of."""
        return self.metrics[0]

    @property
    def stamp(self) -> str:
        """What every table says of a part; "" where the whole split was scored."""
        return "" if self.share == 1 else f"only {self.share:.1%} of the questions: no figure of the split"

    def tables(self) -> list[Table]:
        """Figures, then types of questions, then differences between files, then the suites."""
        found = [self._figures()]
        if self.dataset.question_type is not None:
            found.append(self._question_types())
        if len(self.files) > 1:
            found.append(self._differences())
        return [*found, *self._suite_tables()]

    def sentences(self) -> list[str]:
        """Which files are below a floor, and the remarks."""
        said = []
        for name, values in self.files.items():
            own, floors = mean_percent(values[self.lead.name]), self._floors(self.lead)
            if floor := below_floor(own, floors):
                said.append(f"{name} is below a floor: {own:.2f}, where the {floor} reaches {floors[floor]:.2f}.")
        return [*said, *self.remarks]

    def as_json(self) -> dict[str, Any]:
        """One file: the official program's own structure and more; several: that by file."""
        files = {name: self._file_json(name) for name in self.files}
        if len(files) == 1:
            return next(iter(files.values()))
        compared = self._statistics()
        for name, one in compared.items():
            files[name]["against_first"] = None if one.against is None else one.against.as_json()
        return {"results": files}

    def _file_json(self, name: str) -> dict[str, Any]:
        value_N, floors = self.files[name][self.lead.name], self._floors(self.lead)
        rounded = [round_percent(100 * value) for value in value_N.tolist()]
        overall = mean_percent(value_N)
        return {
            "protocol": self.lead.protocol,
            "metric": self.lead.name,
            "data": self.dataset.name,
            "questions": len(self.dataset),
            "share": self.share,
            "overall": overall,
            "interval": self.interval(value_N),
            "metrics": {one.name: mean_percent(self.files[name][one.name]) for one in self.metrics},
            "suites": {one.name: one.as_json() for one in self.suites.get(name, ())},
            "perAnswerType": means_by_type(value_N, self.dataset.answer_type),
            "perQuestionType": means_by_type(value_N, self.dataset.question_type),
            "perQuestion": dict(zip(map(str, self.dataset.written_ids), rounded, strict=True)),
            "floors": floors,
            "ceilings": self._bound_values(self.lead, "ceiling"),
            "below_floor": below_floor(overall, floors),
            "remarks": list(self.remarks),
        }

    def interval(self, value_N: NDArray[np.float64]) -> list[float] | None:
        """The 95% bootstrap interval of a mean in percent, images resampled whole; None for one image."""
        _, image_N = np.unique(self.dataset.image_row_N, return_inverse=True)
        count_I = np.bincount(image_N).astype(np.float64)
        sum_I = np.bincount(image_N, weights=value_N).astype(np.float64)
        low, high = bootstrap_interval(sum_I, count_I)
        return None if low is None or high is None else [100 * max(0.0, low), 100 * min(1.0, high)]

    def _bound_values(self, metric: Metric, kind: Kind) -> dict[str, float]:
        return {one.name: mean_percent(one.values[metric.name]) for one in self.bounds if one.kind == kind}

    def _floors(self, metric: Metric) -> dict[str, float]:
        return self._bound_values(metric, "floor")

    def _caption(self, what: str) -> str:
        stamp = f" {self.stamp.capitalize()}." if self.stamp else ""
        return f"{what} in percent, {self.dataset.name}, {len(self.dataset):,} questions, {self.task}.{stamp}"

    def _figures(self) -> Table:
        """One metric: overall, by answer type, and its interval. Several: each one's mean, and the first's interval."""
        rows: list[tuple[str, Kind, Values]] = [(name, "run", values) for name, values in self.files.items()]
        rows += [(one.name, one.kind, one.values) for one in self.bounds]
        types = self._types() if len(self.metrics) == 1 else []
        columns = [Column("all")] if len(self.metrics) == 1 else [Column(one.title) for one in self.metrics]
        columns += [Column(name) for name in types]
        columns += [Column("low", LEVEL), Column("high", LEVEL)]
        made = []
        for name, kind, values in rows:
            lead_N = values[self.lead.name]
            cells: list[float | None] = [mean_percent(values[one.name]) for one in self.metrics]
            by_type = means_by_type(lead_N, self.dataset.answer_type)
            interval = self.interval(lead_N) if kind == "run" else None
            cells += [by_type.get(name) for name in types] + list(interval or (None, None))
            made.append(Row(name, tuple(cells), kind=kind))
        titles = ", ".join(one.title for one in self.metrics)
        title = f"{titles[:1].upper()}{titles[1:]}"
        note = f"{LEVEL}: interval of {self.lead.title} over images; the model and its seed are what they are."
        return Table(f"{title} ({self.lead.name})" if len(self.metrics) == 1 else title,
                     self._caption(title), tuple(columns), tuple(made), note)  # fmt: skip

    def _types(self) -> list[str]:
        """The answer types, the official ones first; none where there are too many for columns."""
        column = self.dataset.answer_type
        found = [] if column is None else sorted(means_by_type(np.zeros(len(self.dataset)), column), key=type_order)
        return found if len(found) <= MOST_TYPES else []

    def _question_types(self) -> Table:
        """A row a type; a column a file, then the prior per type and the ceilings."""
        shown: list[tuple[str, Kind, Values]] = [(name, "run", values) for name, values in self.files.items()]
        kept = [one for one in self.bounds if one.name == TYPE_PRIOR or one.kind == "ceiling"]
        shown += [(one.name, one.kind, one.values) for one in kept]
        found = [means_by_type(values[self.lead.name], self.dataset.question_type) for _, _, values in shown]
        names = sorted({name for one in found for name in one})
        rows = tuple(Row(name, tuple(one.get(name) for one in found)) for name in names)
        columns = tuple(Column(name, kind=kind) for name, kind, _ in shown)
        title = f"{self.lead.title[:1].upper()}{self.lead.title[1:]}"
        heading, caption = f"{title} per question type, {self.task}", self._caption(title)
        return Table(heading, caption, columns, rows, row_heading="Question type", best="row")

    def _statistics(self) -> dict[str, SystemStatistics]:
        files = {name: values[self.lead.name] for name, values in self.files.items()}
        return compare_systems(files, self.dataset.image_row_N, next(iter(files)))

    def _differences(self) -> Table:
        first = next(iter(self.files))
        rows = []
        for name, one in self._statistics().items():
            if one.against is not None:
                found = one.against
                rows.append(Row(name, (found.points, found.low, found.high, found.p, found.p_holm)))
        columns = (
            Column("points"), Column("low", LEVEL), Column("high", LEVEL),
            Column("p", decimals=4), Column("p, Holm", decimals=4),
        )  # fmt: skip
        caption = f"Percentage points of {self.lead.title}, {self.dataset.name}; images are resampled, not questions."
        return Table(f"Against {first}", caption, columns, tuple(rows), best="none")

    def _suite_tables(self) -> list[Table]:
        """A table a suite: a row a figure, a column a file."""
        found = []
        for place, suite in enumerate(next(iter(self.suites.values()), ())):
            of_files = {name: self.suites[name][place] for name in self.files}
            figures = dict.fromkeys(figure for one in of_files.values() for figure in one.figures)
            rows = tuple(Row(name, tuple(one.figures.get(name) for one in of_files.values())) for name in figures)
            columns, caption = tuple(Column(name) for name in self.files), self._caption(suite.about)
            lacking = _lacking(of_files)
            found.append(Table(suite.title, caption, columns, rows, lacking, row_heading="Metric", best="none"))
        return found


def _lacking(of_files: Mapping[str, Suite]) -> str:
    """What was not computed and what it needs, with the files' names where others have it."""
    files_of: dict[tuple[str, str], list[str]] = {}
    for name, suite in of_files.items():
        for lacking in suite.lacking.items():
            files_of.setdefault(lacking, []).append(name)
    said = []
    for (figure, what), files in files_of.items():
        which = "" if len(files) == len(of_files) else f" of {', '.join(files)}"
        said.append(f"{figure}: not computed{which}: needs {what}.")
    return " ".join(said)
