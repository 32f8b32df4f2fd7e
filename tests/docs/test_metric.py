"""docs/metric.md: every value that its tables state is what the code computes."""

import re
from pathlib import Path

import numpy as np
import pytest

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.evaluation.accuracy import PROTOCOLS, score
from vqa.text.normalise import normalise

PAGE = (Path(__file__).parents[2] / "docs" / "metric.md").read_text(encoding="utf-8")


def rows(*head: str) -> list[list[str]]:
    """The rows of every table of the page that has these column names."""
    found, inside = [], False
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| --- "):
            continue
        inside = line.startswith("|") and (inside or cells == list(head))
        if inside and cells != list(head):
            found.append(cells)
    return found


EXAMPLES = rows("humans", "prediction", "2021", "2015", "harness")
NORMALISED = rows("answer", "normalised", "why")


def test_the_tables_are_found() -> None:
    assert len(EXAMPLES) == 25
    assert len(NORMALISED) == 18


@pytest.mark.parametrize("row", EXAMPLES, ids=" ".join)
def test_worked_example(row: list[str]) -> None:
    humans = [answer for count, answer in re.findall(r"(\d+) `(.*?)`", row[0]) for _ in range(int(count))]
    dataset = QADataset(
        "table",
        "val",
        np.array([1]),
        np.array([0], dtype=np.int32),
        ImageTable(("1",), (Path("1.jpg"),)),
        Strings.of(["?"]),
        answers=Strings.of_rows([humans], len(humans)),
    )
    prediction = Strings.of([row[1].strip("`")])
    assert [score(dataset, prediction, protocol).overall for protocol in PROTOCOLS] == list(map(float, row[2:]))


@pytest.mark.parametrize("row", NORMALISED, ids=" ".join)
def test_normalisation_example(row: list[str]) -> None:
    assert normalise(row[0].strip("`")) == row[1].strip("`")
