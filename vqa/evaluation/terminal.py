"""Tables of results on the terminal."""

from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from vqa.evaluation.tables import Table
from vqa.progress import console

NAMES = 20  # characters that the column of names has at least


def print_table(table: Table) -> None:
    """Print a table of results: best numbers bold, floors and ceilings dim, the metric and protocol below.

    Where the terminal is too narrow for its headings, each group of columns stands below the one before.
    """
    pieces = _pieces(table)
    for piece in pieces:
        _print_columns(table, piece, first=piece is pieces[0], last=piece is pieces[-1])
    if table.note:
        console.print(table.note, markup=False)


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
        if len(piece) < len(table.columns) and all(row.values[c] is None for c in piece):
            continue  # a bound of the other task
        cells = [Text(table.text(r, c), style="bold" if table.is_best(r, c) else "") for c in piece]
        shown.add_row(Text(row.name), *cells, style="" if row.kind == "run" else "dim")
    console.print(shown, width=_width(piece))
