"""The console: text from data is shown as it is, obeyed by nobody."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table as RichTable
from rich.text import Text

from vqa.progress import SafeConsole, progress_bar, visible
from vqa.tables import Column, Row, Table, print_table

OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
EVIL = [
    "\x1b[2J\x1b[H",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\r gone",
    "\u202egnp.exe",
    "a\x00b",
    "\x1bc",
    "\udcff",
    "\x08\x08",
]
BRACKETS = [
    "[/path]",
    "[bold]",
    "a[/b]",
    "v[old]",
    "[link=file:///etc]x[/link]",
    "[0]",
    "\\[x]",
    ":smile:",
    "[[",
    "[/]",
]


def shown(renderable: RenderableType) -> str:
    console = SafeConsole()
    console.file = io.StringIO()
    console.print(renderable)
    return console.file.getvalue()


def table_of(text: str) -> RichTable:
    table = RichTable(text, title=text, caption=text)
    table.add_row(text)
    table.add_row(Text(text))
    return table


@pytest.mark.parametrize("text", EVIL)
def test_control_characters_are_made_visible_wherever_they_stand(text: str) -> None:
    for renderable in (text, Text(text), table_of(text), Panel(text, title=text)):
        assert not OBEYED.search(shown(renderable).replace("\n", "")), repr(renderable)
    assert visible(text) in shown(text)


@pytest.mark.parametrize("text", BRACKETS)
def test_square_brackets_are_no_markup(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(text) == f"{text}\n"
    assert text in shown(table_of(text))
    print_table(Table(text, text, (Column("c"),), (Row(text, (1.0,)),), note=text))
    assert capsys.readouterr().out.count(text) == 4
    with progress_bar() as bar:
        bar.add_task(text, total=1, note=text)
    assert capsys.readouterr().out.count(text) == 2


@given(st.text())
def test_any_text_is_shown_whole_and_harmless(text: str) -> None:
    out = shown(text)
    assert not OBEYED.search(out)
    assert "".join(visible(text).split()) == "".join(out.split())


def test_markup_of_ours_is_asked_for() -> None:
    console = SafeConsole()
    console.file = io.StringIO()
    console.print("[bold]a[/]", markup=True)
    assert console.file.getvalue() == "a\n"
