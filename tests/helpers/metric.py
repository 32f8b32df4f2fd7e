"""Small data sets for the tests of the metric, built without any reader."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vqa.data.dataset import ImageTable, QADataset, Strings

GOLDEN = Path(__file__).parents[1] / "data" / "golden_metric"


def golden(name: str) -> Any:
    """The content of one golden JSON file, compressed or not."""
    path = GOLDEN / name
    return json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())


def qa_dataset(
    answers: Sequence[Sequence[str]] | None,
    *,
    ids: Sequence[int] | None = None,
    questions: Sequence[str] | None = None,
    choices: Sequence[Sequence[str]] | None = None,
    majority: Sequence[str] | None = None,
    question_type: Sequence[str] | None = None,
    answer_type: Sequence[str] | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> QADataset:
    """A data set of one image; every row of `answers` is one question."""
    count = len(answers if answers is not None else ids or ())
    return QADataset(
        format="made",
        split="val2014",
        question_id_N=np.asarray(range(count) if ids is None else ids, dtype=np.int64),
        image_row_N=np.zeros(count, dtype=np.int32),
        images=ImageTable(("1",), (Path("1.jpg"),)),
        question=Strings.of(questions or ["what is it?"] * count),
        answers=None if answers is None else Strings.of_rows(answers, max(map(len, answers), default=1)),
        majority=None if majority is None else Strings.of(majority),
        choices=None if choices is None else Strings.of_rows(choices, max(map(len, choices))),
        question_type=None if question_type is None else Strings.of(question_type),
        answer_type=None if answer_type is None else Strings.of(answer_type),
        pairs_P2=None if pairs is None else np.asarray(pairs, dtype=np.int64),
        data_type="mscoco",
    )


def golden_dataset() -> QADataset:
    """The golden questions and annotations."""
    questions = golden("questions.json.gz")["questions"]
    annotations = golden("annotations.json.gz")["annotations"]
    assert [q["question_id"] for q in questions] == [a["question_id"] for a in annotations]
    return qa_dataset(
        [[human["answer"] for human in a["answers"]] for a in annotations],
        ids=[a["question_id"] for a in annotations],
        questions=[q["question"] for q in questions],
        majority=[a["multiple_choice_answer"] for a in annotations],
        question_type=[a["question_type"] for a in annotations],
        answer_type=[a["answer_type"] for a in annotations],
    )


def golden_predictions(dataset: QADataset) -> Strings:
    """The golden results in the data set's order."""
    answer_of = {result["question_id"]: result["answer"] for result in golden("results.json.gz")}
    return Strings.of([answer_of[question] for question in dataset.question_id_N.tolist()])
