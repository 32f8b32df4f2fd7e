"""Tables of results: what they hold, and the same table as Markdown, as JSON and on the terminal."""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from vqa.progress import console

BELOW = "↓ "  # before the number of a run that is below a floor
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
        bold: with `best="none"`, cells to mark, as (row, column): where more than a greater number speaks for them.
    """

    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""
    row_heading: str = "Model"
    best: Literal["column", "row", "none"] = "column"
    bold: frozenset[tuple[int, int]] = frozenset()

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
        shown = f"{value:,.{decimals}f}" + ("" if spread is None else f" ± {spread:.{decimals}f}")
        return f"{BELOW}{shown}" if self.is_below_floor(row, column) else shown

    @property
    def notes(self) -> str:
        """What stands below the table: its note, and what the mark of a number below a floor means, where it stands."""
        cells = ((row, column) for row in range(len(self.rows)) for column in range(len(self.columns)))
        marked = any(self.is_below_floor(*cell) for cell in cells)
        where = "row" if self.best == "row" else "column"
        return " ".join(filter(None, [self.note, f"{BELOW.strip()} below a floor of its {where}." if marked else ""]))

    def is_below_floor(self, row: int, column: int) -> bool:
        """Whether a run's number is lower than that of a floor in its column, or in its row where runs are columns."""
        value = self.rows[row].values[column]
        if value is None or self._competing(row, column) is None:
            return False
        if self.best == "row":
            beside = [(c.name, c.kind, other) for c, other in zip(self.columns, self.rows[row].values, strict=True)]
        else:
            beside = [(one.name, one.kind, one.values[column]) for one in self.rows]
        floors = {name: other for name, kind, other in beside if kind == "floor" and other is not None}
        return bool(below_floor(value, floors))

    def is_best(self, row: int, column: int) -> bool:
        """Whether this cell shows the greatest number among at least two competing runs, or is named in `bold`."""
        if self.best == "none":
            return (row, column) in self.bold
        if self.best == "column":
            rivals = [(other, column) for other in range(len(self.rows))]
        else:
            rivals = [(row, other) for other in range(len(self.columns))]
        shown = {cell: value for cell in rivals if (value := self._competing(*cell)) is not None}
        if len(shown) < 2 or (row, column) not in shown:
            return False
        return shown[row, column] == max(shown.values())

    def _competing(self, row: int, column: int) -> float | None:
        """The number of a run as it is shown, rounded; None for floors, ceilings and empty cells."""
        value = self.rows[row].values[column]
        if value is None or self.rows[row].kind != "run" or self.columns[column].kind != "run":
            return None
        return round(value, self.columns[column].decimals)


def below_floor(value: float, floors: Mapping[str, float]) -> str:
    """The name of the highest floor that a number is below; "" where it is below none, as one that equals the highest.

    Every mark of a model below a floor comes from here: a number below what can be had without the image, or without
    a model, is no achievement.

    >>> below_floor(30.1, {"most popular answer": 25.0, "per question type": 34.2})
    'per question type'
    """
    highest = max(floors, key=floors.__getitem__, default="")
    return highest if highest and value < floors[highest] else ""


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
    if table.notes:
        lines += ["", _plain(table.notes)]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """One line in which no character of Markdown or HTML has a meaning."""
    # An underscore inside a word (stacked_attention) has no meaning and stays readable.
    return re.sub(r"([\\`*\[\]<>|#&]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))


_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--",
    "↓": r"$\downarrow$", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


LATEX_COLUMNS = 6  # that a line of a page has room for


def latex_text(text: str) -> str:
    """One line of text in which no character has a meaning to LaTeX.

    >>> latex_text("50% of stacked_attention")
    '50\\\\% of stacked\\\\_attention'
    """
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def render_latex(table: Table) -> str:
    r"""The table for `\input`, with booktabs: groups of columns under a rule, floors and ceilings set apart in italics.

    A preamble needs `\usepackage{booktabs}`, and `graphicx` for a wide table, which is scaled to the line.
    """
    groups = [(name, len(list(of))) for name, of in groupby(column.group for column in table.columns)]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(f'{table.title}. {table.caption} {table.notes}')}}}",
    ]
    wide = len(table.columns) > LATEX_COLUMNS
    lines += [r"\resizebox{\textwidth}{!}{%"] if wide else []
    lines += [rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule"]
    if any(name for name, _ in groups):
        heads, rules, first = [], [], 2
        for name, width in groups:
            heads.append(rf"\multicolumn{{{width}}}{{c}}{{{latex_text(name)}}}")
            rules += [rf"\cmidrule(lr){{{first}-{first + width - 1}}}"] if name else []
            first += width
        lines += [" & ".join(["", *heads]) + r" \\", " ".join(rules)]
    names = [table.row_heading, *(column.name for column in table.columns)]
    lines += [" & ".join(map(latex_text, names)) + r" \\", r"\midrule"]
    for r, row in enumerate(table.rows):
        if r and row.kind != "run" and table.rows[r - 1].kind == "run":
            lines.append(r"\midrule")
        cells = [latex_text(row.name) if row.kind == "run" else rf"\textit{{{latex_text(row.name)}}}"]
        for c in range(len(table.columns)):
            shown = latex_text(table.text(r, c))
            cells.append(rf"\textbf{{{shown}}}" if table.is_best(r, c) else shown)
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *(["}"] if wide else []), r"\end{table}"]) + "\n"


def render_csv(table: Table) -> str:
    """Numbers as they are, not rounded: a column each, and one of the deviation after it over runs."""
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    spread = [any(row.spread and row.spread[c] is not None for row in table.rows) for c in range(len(table.columns))]
    head = [table.row_heading.lower(), "kind"]
    for column, varies in zip(table.columns, spread, strict=True):
        head += [column.full_name, f"{column.full_name}: deviation"] if varies else [column.full_name]
    write(head)
    for row in table.rows:
        line: list[Any] = [row.name, row.kind]
        for c, value in enumerate(row.values):
            line += [value, row.spread[c] if row.spread else None] if spread[c] else [value]
        write(line)
    return text.getvalue()


def table_json(table: Table) -> dict[str, Any]:
    """The table for `json.dump`: each row's numbers by full column name, null where there is none."""
    names = [column.full_name for column in table.columns]
    rows = []
    for r, row in enumerate(table.rows):
        item: dict[str, Any] = {
            "name": row.name,
            "kind": row.kind,
            "values": dict(zip(names, row.values, strict=True)),
        }
        below = [names[c] for c in range(len(names)) if table.is_below_floor(r, c)]
        if below:
            item["below_floor"] = below
        if row.spread:
            item["standard_deviation"] = dict(zip(names, row.spread, strict=True))
        rows.append(item)
    return {"title": table.title, "caption": table.caption, "columns": names, "rows": rows, "note": table.note}


NAMES = 20  # characters that the column of names has at least


def print_table(table: Table) -> None:
    """Print a table of results: best numbers bold, floors and ceilings dim, the metric and protocol below.

    Where the terminal is too narrow for its headings, each group of columns stands below the one before.
    """
    pieces = _pieces(table)
    for piece in pieces:
        _print_columns(table, piece, first=piece is pieces[0], last=piece is pieces[-1])
    if table.notes:
        console.print(table.notes)


def _padding() -> int:
    return int(console.width >= 100)


def _numbers(table: Table, c: int) -> int:
    return max(len(table.text(r, c)) for r in range(len(table.rows)))


def _pieces(table: Table) -> list[list[int]]:
    """The columns that stand side by side: all of them, or where words would be broken those of one group."""
    columns = list(range(len(table.columns)))
    groups = [list(piece) for _, piece in groupby(columns, key=lambda c: table.columns[c].group)]
    words = [max(map(len, f"{column.group} {column.name}".split())) for column in table.columns]
    needed = NAMES + sum(max(words[c], _numbers(table, c)) + 2 * _padding() + 1 for c in columns)
    return groups if needed > _width(columns) else [columns]


def _width(piece: list[int]) -> int:
    """What a table may ask for: rich makes one that it shrinks wider than that, by one a column."""
    return max(40, console.width - len(piece) - 2)


def _print_columns(table: Table, piece: list[int], *, first: bool, last: bool) -> None:
    shown = RichTable(
        title=Text(table.title) if first else None, caption=Text(table.caption) if last else None,
        title_justify="left", caption_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, _padding()),
    )  # fmt: skip
    word = max(len(word) for row in table.rows for word in row.name.split() or [""])
    shown.add_column(table.row_heading, vertical="bottom", min_width=min(NAMES, word), overflow="fold")
    for c in piece:
        column = table.columns[c]
        heading = f"{column.group}\n{column.name}" if column.group else column.name
        # headings may wrap, numbers never
        shown.add_column(
            Text(heading), justify="right", vertical="bottom", min_width=_numbers(table, c), overflow="fold"
        )
    for r, row in enumerate(table.rows):
        numbers = [value is not None for value in row.values]
        if any(numbers) and not any(numbers[c] for c in piece):
            continue  # a bound of the other task
        cells = [Text(table.text(r, c), style="bold" if table.is_best(r, c) else "") for c in piece]
        shown.add_row(Text(row.name), *cells, style="" if row.kind == "run" else "dim")
    console.print(shown, width=_width(piece))
