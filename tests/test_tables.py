"""Tables on terminals of several widths: no number is lost and no heading broken within a word."""

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
