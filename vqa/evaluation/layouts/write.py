"""Answers to a data set in the layouts of others: their evaluation servers, and the two large harnesses.

Legend: `N` questions.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from vqa.data.dataset import ABSENT, QADataset, Strings
from vqa.errors import InputError, unknown_name
from vqa.files import atomic_write


class WriteTo(NamedTuple):
    """A layout and the file to write.

    Attributes:
        layout: a name in `LAYOUTS`.
        path: the file.
    """

    layout: str
    path: Path


class _Line(NamedTuple):
    """One question with its answer, as the layouts need it."""

    place: int
    id: int | str
    image: str
    question: str
    truth: list[str]
    answer: str


def parse_write(text: str) -> WriteTo:
    """`LAYOUT=FILE` of the command line; raises InputError that lists the layouts."""
    layout, equals, path = text.partition("=")
    if not equals or not path:
        raise InputError(f"--write {text}: give LAYOUT=FILE, with a layout of {', '.join(LAYOUTS)}")
    if layout not in LAYOUTS:
        raise InputError(unknown_name("layout", layout, LAYOUTS))
    return WriteTo(layout, Path(path))


def write_layout(to: WriteTo, dataset: QADataset, predictions: Strings) -> None:
    """Write one answer a question, atomically.

    Args:
        predictions: `[N]`; a question without an answer is left out.

    Raises:
        InputError: the layout names questions by something that the data set does not have one of for each.
        ValueError: `predictions` does not have one row a question.
    """
    if predictions.codes.shape != (len(dataset),):
        raise ValueError(f"{to.path}: predictions have shape {predictions.codes.shape}, questions ({len(dataset)},)")
    text = LAYOUTS[to.layout](_lines(dataset, predictions), to.path)
    with atomic_write(to.path, "wb") as file:
        file.write(text.encode())


def _lines(dataset: QADataset, predictions: Strings) -> list[_Line]:
    paths, ids = dataset.images.paths, dataset.written_ids
    return [
        _Line(
            row,
            ids[row],
            PurePath(paths[dataset.image_row_N[row]]).name,
            dataset.question.at(row),
            [] if dataset.answers is None else dataset.answers.row(row),
            predictions.at(row),
        )
        for row in np.flatnonzero(predictions.codes != ABSENT).tolist()
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _official(lines: Sequence[_Line], path: Path) -> str:
    return _json([{"question_id": one.id, "answer": one.answer} for one in lines])


def _by_id(lines: Sequence[_Line], path: Path) -> str:
    return _json({str(one.id): one.answer for one in lines})


def _json_lines(lines: Sequence[_Line], path: Path) -> str:
    return "".join(_json({"question_id": one.id, "question": one.question, "answer": one.answer}) for one in lines)


def _csv(lines: Sequence[_Line], path: Path) -> str:
    return _table(["question_id", "question", "answer"], [[one.id, one.question, one.answer] for one in lines], ",")


def _lmms_eval(lines: Sequence[_Line], path: Path) -> str:
    """lmms-eval's samples: places in the split, the answer in two lists."""
    return "".join(
        _json({"doc_id": one.place, "target": str(one.truth), "filtered_resps": [one.answer]}) for one in lines
    )


def _vlmevalkit(lines: Sequence[_Line], path: Path) -> str:
    """VLMEvalKit's table: every cell in quotation marks, as pandas writes it there; several answers as a list."""
    rows = [
        [one.place, one.question, one.truth[0] if len(one.truth) == 1 else str(one.truth), one.answer] for one in lines
    ]
    return _table(["index", "question", "answer", "prediction"], rows, "\t")


def _gqa(lines: Sequence[_Line], path: Path) -> str:
    return _json([{"questionId": str(one.id), "prediction": one.answer} for one in lines])


def _vizwiz(lines: Sequence[_Line], path: Path) -> str:
    names = [one.image for one in lines]
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise InputError(f"{path}: VizWiz's form names an answer by its image, but {twice} has several questions")
    return _json([{"image": one.image, "answer": one.answer} for one in lines])


def _docvqa(lines: Sequence[_Line], path: Path) -> str:
    return _json([{"questionId": one.id, "answer": one.answer} for one in lines])


def _a_okvqa(lines: Sequence[_Line], path: Path) -> str:
    """A-OKVQA's leaderboard: the direct answer."""
    return _json({str(one.id): {"direct_answer": one.answer} for one in lines})


def _table(header: list[str], rows: list[list[Any]], delimiter: str) -> str:
    text = io.StringIO()
    if delimiter == "\t":
        writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
    else:
        writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerows([header, *rows])
    return text.getvalue()


LAYOUTS: dict[str, Callable[[Sequence[_Line], Path], str]] = {
    "official": _official,
    "by-id": _by_id,
    "jsonl": _json_lines,
    "csv": _csv,
    "lmms-eval": _lmms_eval,
    "vlmevalkit": _vlmevalkit,
    "gqa": _gqa,
    "vizwiz": _vizwiz,
    "docvqa": _docvqa,
    "a-okvqa": _a_okvqa,
}
