"""Tables of results: what they hold, and the same table as Markdown and as JSON."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from vqa.errors import InputError
from vqa.evaluation.accuracy import Score

Kind = Literal["run", "floor", "ceiling"]  # a floor or a ceiling frames the runs and never competes with them


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes:
        name: what it measures; columns of one group have different names.
        group: a heading over neighbouring columns, e.g. "Open-ended"; may be empty.
        kind: "floor" and "ceiling" columns are set apart.
        decimals: how many are shown.
    """

    name: str
    group: str = ""
    kind: Kind = "run"
    decimals: int = 2

    @property
    def full_name(self) -> str:
        """The name with its group, different for every column: "Open-ended, yes/no"."""
        return f"{self.group}, {self.name}" if self.group else self.name


@dataclass(frozen=True)
class Row:
    """A row of numbers.

    Attributes:
        name: a run, a floor, a question type …
        values: one a column; None where there is no number.
        spread: standard deviations over seeds, one a column, or empty.
        kind: "floor" and "ceiling" rows are set apart.
    """

    name: str
    values: tuple[float | None, ...]
    spread: tuple[float | None, ...] = ()
    kind: Kind = "run"


@dataclass(frozen=True)
class Table:
    """A table of results.

    Attributes:
        title: a few words.
        caption: the metric, its unit, the protocol and the data that the numbers are of.
        columns: at least one.
        rows: in the order shown, floors and ceilings last.
        note: what a reader should know besides; may be empty.
        row_heading: what the rows are.
        best: where runs compete, so that the greatest number is marked: down each column, along each row, or nowhere.
    """

    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""
    row_heading: str = "Model"
    best: Literal["column", "row", "none"] = "column"

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.values) != len(self.columns) or len(row.spread) not in (0, len(self.columns)):
                raise ValueError(f"{self.title}: row {row.name!r} does not have one value a column")

    def text(self, row: int, column: int) -> str:
        """A cell as it is shown: "71.24", "71.24 ± 0.40", or "–" where there is no number."""
        value, decimals = self.rows[row].values[column], self.columns[column].decimals
        if value is None:
            return "–"
        spread = self.rows[row].spread[column] if self.rows[row].spread else None
        return f"{value:,.{decimals}f}" + ("" if spread is None else f" ± {spread:.{decimals}f}")

    def is_best(self, row: int, column: int) -> bool:
        """Whether this cell shows the greatest number among at least two competing runs; equals are all best."""
        if self.best == "column":
            rivals = [(other, column) for other in range(len(self.rows))]
        else:
            rivals = [(row, other) for other in range(len(self.columns))]
        shown = {cell: value for cell in rivals if (value := self._competing(*cell)) is not None}
        if self.best == "none" or len(shown) < 2 or (row, column) not in shown:
            return False
        return shown[row, column] == max(shown.values())

    def _competing(self, row: int, column: int) -> float | None:
        """The number of a run as it is shown, rounded; None for floors, ceilings and empty cells."""
        value = self.rows[row].values[column]
        if value is None or self.rows[row].kind != "run" or self.columns[column].kind != "run":
            return None
        return round(value, self.columns[column].decimals)


def render_markdown(table: Table) -> str:
    """The table in Markdown, title and caption above: best numbers bold, floors and ceilings in italics.

    Text from the data can neither break the table nor bring in HTML.
    """
    head = [table.row_heading, *(column.full_name for column in table.columns)]
    lines = [
        f"**{_plain(table.title)}**",
        "",
        _plain(table.caption),
        "",
        "| " + " | ".join(map(_plain, head)) + " |",
        "| --- |" + " ---: |" * len(table.columns),
    ]
    for r, row in enumerate(table.rows):
        cells = [_plain(row.name) if row.kind == "run" else f"*{_plain(row.name)}*"]
        for c in range(len(table.columns)):
            cells.append(f"**{table.text(r, c)}**" if table.is_best(r, c) else table.text(r, c))
        lines.append("| " + " | ".join(cells) + " |")
    if table.note:
        lines += ["", _plain(table.note)]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """One line in which no character of Markdown or HTML has a meaning."""
    # An underscore inside a word (stacked_attention) has no meaning and stays readable.
    return re.sub(r"([\\`*\[\]<>|#&]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))


def table_json(table: Table) -> dict[str, Any]:
    """The table for `json.dump`: each row's numbers by full column name, null where there is none."""
    names = [column.full_name for column in table.columns]
    rows = []
    for row in table.rows:
        item: dict[str, Any] = {
            "name": row.name,
            "kind": row.kind,
            "values": dict(zip(names, row.values, strict=True)),
        }
        if row.spread:
            item["standard_deviation"] = dict(zip(names, row.spread, strict=True))
        rows.append(item)
    return {"title": table.title, "caption": table.caption, "columns": names, "rows": rows, "note": table.note}


class Scored(NamedTuple):
    """A run, floor or ceiling with its scores; None for a task it was not scored on."""

    name: str
    open_ended: Score | None = None
    multiple_choice: Score | None = None
    kind: Kind = "run"


def accuracy_table(scored: Sequence[Scored], *, data: str, title: str = "Accuracy", note: str = "") -> Table:
    """Both tasks side by side: accuracy over all questions, then per answer type.

    Args:
        scored: in the order to show, floors and ceilings last.
        data: what was scored, for the caption: "vqa_v2 val2014".

    Raises:
        InputError: when the scores are of different protocols or there are none.
    """
    tasks = {
        "Open-ended": [one.open_ended for one in scored],
        "Multiple choice": [one.multiple_choice for one in scored],
    }
    tasks = {name: scores for name, scores in tasks.items() if any(scores)}
    columns, values_CR = [], []
    for task, scores in tasks.items():
        types = list(dict.fromkeys(name for one in scores if one for name in one.per_answer_type))
        columns.append(Column("all", task))
        values_CR.append([one.overall if one else None for one in scores])
        for name in sorted(types, key=_type_order):
            columns.append(Column(name, task))
            values_CR.append([one.per_answer_type.get(name) if one else None for one in scores])
    rows = tuple(Row(one.name, tuple(values[r] for values in values_CR), kind=one.kind) for r, one in enumerate(scored))
    caption = _caption([score for scores in tasks.values() for score in scores if score], data)
    return Table(title, caption, tuple(columns), rows, note)


def question_type_table(
    scored: Sequence[Scored], task: Literal["open-ended", "multiple-choice"], *, data: str, note: str = ""
) -> Table:
    """One task's accuracy per question type: a row a type, a column a run.

    Raises:
        InputError: when the scores are of different protocols or there are none.
    """
    found = [(one, one.open_ended if task == "open-ended" else one.multiple_choice) for one in scored]
    shown = [(one, score) for one, score in found if score is not None]
    names = sorted({name for _, score in shown for name in score.per_question_type})
    rows = tuple(Row(name, tuple(score.per_question_type.get(name) for _, score in shown)) for name in names)
    columns = tuple(Column(one.name, kind=one.kind) for one, _ in shown)
    title = f"Accuracy per question type, {task}"
    caption = _caption([score for _, score in shown], data)
    return Table(title, caption, columns, rows, note, row_heading="Question type", best="row")


def _type_order(name: str) -> tuple[int, str]:
    official = ("yes/no", "number", "other")
    return (official.index(name) if name in official else len(official), name)


def _caption(scores: Sequence[Score], data: str) -> str:
    protocols = sorted({score.protocol for score in scores})
    if len(protocols) != 1:
        raise InputError(f"{data}: a table needs scores of one protocol, not {', '.join(protocols) or 'none'}")
    fewest, *_, most = sorted([len(score.question_id_N) for score in scores] * 2)
    questions = f"{fewest:,} questions" if fewest == most else f"{fewest:,} to {most:,} questions"
    return f"VQA accuracy in percent, official protocol of {protocols[0]}, {data}, {questions}."
