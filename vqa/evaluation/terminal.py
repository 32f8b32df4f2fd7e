"""Tables of results on the terminal."""

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from vqa.evaluation.tables import Table
from vqa.progress import console


def print_table(table: Table) -> None:
    """Print a table of results: best numbers bold, floors and ceilings dim, the metric and protocol below."""
    shown = RichTable(
        title=Text(table.title), caption=Text(table.caption), title_justify="left", caption_justify="left",
        box=SIMPLE_HEAD, pad_edge=False, padding=(0, int(console.width >= 100)),
    )  # fmt: skip
    word = max(len(word) for row in table.rows for word in row.name.split() or [""])
    shown.add_column(table.row_heading, vertical="bottom", min_width=min(20, word), overflow="fold")
    for c, column in enumerate(table.columns):
        heading = f"{column.group}\n{column.name}" if column.group else column.name
        numbers = max(len(table.text(r, c)) for r in range(len(table.rows)))  # headings may wrap, numbers never
        shown.add_column(Text(heading), justify="right", vertical="bottom", min_width=numbers, overflow="fold")
    for r, row in enumerate(table.rows):
        cells = [Text(table.text(r, c), style="bold" if table.is_best(r, c) else "") for c in range(len(table.columns))]
        shown.add_row(Text(row.name), *cells, style="" if row.kind == "run" else "dim")
    # rich makes a table that it shrinks wider than it was asked for, by one a column
    console.print(shown, width=max(40, console.width - len(table.columns) - 2))
    if table.note:
        console.print(table.note, markup=False)
