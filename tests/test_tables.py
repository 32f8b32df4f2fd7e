"""Tables on terminals of several widths: no number is lost and no heading broken within a word."""

import csv
import io

import pytest

from vqa import tables
from vqa.tables import Column, Row, Table

ANSWER_TYPES = ("all", "yes/no", "number", "other")
TABLE = Table(
    title="Accuracy",
    caption="VQA accuracy in percent.",
    columns=tuple(Column(name, group) for group in ("Open-ended", "Multiple choice") for name in ANSWER_TYPES),
    rows=(
        Row("stacked_attention, seed 0", tuple(float(10 + n) for n in range(8))),
        Row("human agreement", (*(90.0 + n for n in range(4)), *[None] * 4), kind="ceiling"),
    ),
)


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_headings_and_numbers_are_whole(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables.console, "width", width)
    with tables.console.capture() as captured:
        tables.print_table(TABLE)
    printed = captured.get()
    assert [printed.count(word) for word in ("Accuracy", "VQA accuracy in percent.")] == [1, 1]
    assert [printed.split().count(word) for word in ("Open-ended", "Multiple", "choice")] == [4, 4, 4]
    assert all(printed.split().count(name) == 2 for name in ANSWER_TYPES)
    shown = [word for word in printed.split() if word.endswith(".00")]
    assert shown == [f"{10 + n}.00" for n in range(8)][:4] + (
        [f"{90 + n}.00" for n in range(4)] + [f"{14 + n}.00" for n in range(4)]
        if width < 160
        else [f"{14 + n}.00" for n in range(4)] + [f"{90 + n}.00" for n in range(4)]
    )
    assert max(len(line.rstrip()) for line in printed.splitlines()) <= width
    assert (printed.split().count("human") == 1) and printed.count("stacked_attention") == (1 if width == 160 else 2)


def test_latex_and_csv_hold_every_number_and_no_live_character() -> None:
    columns = (Column("runs", decimals=0), Column("all", "Open-ended"), Column("50%_&", "Open-ended"))
    rows = (
        Row(r"a_b {x} \input{y}", (3, 1.23456, None), (None, 0.5, None)),
        Row("one, two", (3, 2.0, 7.0)),
        Row("prior", (None, 1.5, 1.0), kind="floor"),
    )
    table = Table("T #1", "100% ~ ^", columns, rows, best="none", bold=frozenset({(1, 1)}))
    text = tables.render_latex(table)
    assert r"\textbf{2.00}" in text and text.count(r"\textbf") == 1 and r"$\downarrow$ 1.23 $\pm$ 0.50" in text
    assert r"a\_b \{x\} \textbackslash{}input\{y\}" in text and r"50\%\_\&" in text
    assert r"\cmidrule(lr){3-4}" in text and r"\textit{prior} & --" in text
    assert text.count(r" \\") == 5 and all(line.count(" & ") in (0, 2, 3) for line in text.splitlines())
    read = list(csv.reader(io.StringIO(tables.render_csv(table))))
    assert read == [
        ["model", "kind", "runs", "Open-ended, all", "Open-ended, all: deviation", "Open-ended, 50%_&"],
        [r"a_b {x} \input{y}", "run", "3", "1.23456", "0.5", ""],
        ["one, two", "run", "3", "2.0", "", "7.0"],
        ["prior", "floor", "", "1.5", "", "1.0"],
    ]
