"""What lies beyond one accuracy, as tables, charts and JSON, with the numbers of `vqa.evaluation.diagnose`."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.metric import qa_dataset

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.accuracy import score
from vqa.evaluation.diagnose import calibration, pair_report, risk_coverage
from vqa.evaluation.report.diagnostics import Diagnostics, diagnose, parse_slices

COUNT = 60


def split(pairs: bool = True) -> QADataset:
    answers = [["yes"] * 10 if row % 3 else ["no"] * 10 for row in range(COUNT)]
    pairs_P2 = [(row, row + 1) for row in range(0, COUNT, 2)]
    dataset = qa_dataset(answers, ids=list(range(COUNT)), pairs=pairs_P2 if pairs else None)
    words = Strings.of(["is it red?" if row % 2 else "is the left one really very blue today?" for row in range(COUNT)])
    images = ImageTable(tuple(str(i) for i in range(COUNT)), (Path("1.jpg"),) * COUNT)
    return replace(dataset, question=words, images=images, image_row_N=np.arange(COUNT, dtype=np.int32))


GIVEN = Strings.of(["yes" if row % 4 else "no" for row in range(COUNT)])
CONFIDENCE_N = np.linspace(0.2, 1.0, COUNT, dtype=np.float32)


def beyond(dataset: QADataset) -> Diagnostics:
    accuracy_N = score(dataset, GIVEN).accuracy_N
    return diagnose("mine", dataset, GIVEN, CONFIDENCE_N, accuracy_N, "2021", {"left": r"\bleft\b", "none": "zebra"})


def test_numbers_are_those_of_the_single_functions() -> None:
    dataset = split()
    found, accuracy_N = beyond(dataset), score(dataset, GIVEN).accuracy_N
    written = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert written["protocol"] == "2021" and written["task"] == "open-ended"
    assert written["complementary_pairs"]["both_right"] == pair_report(dataset, accuracy_N, GIVEN).both_right
    assert written["calibration"]["ece"] == calibration(CONFIDENCE_N, accuracy_N).ece
    assert sum(one["questions"] for one in written["calibration"]["bins"]) == COUNT
    curve, whole = written["risk_coverage"], risk_coverage(CONFIDENCE_N, accuracy_N)
    assert curve["aurc"] == whole.aurc and curve["coverage"][-1] == 1.0
    assert curve["risk"][-1] == pytest.approx(1 - accuracy_N.mean())
    assert all(np.isin(curve["risk"], whole.risk_N))


def test_slices_have_counts_and_intervals_around_their_accuracy() -> None:
    found = {one.name: one for one in beyond(split()).slices}
    assert found["all"].count == COUNT and found["left"].count == COUNT // 2
    assert found["none"].count == 0 and found["none"].accuracy is None
    assert found["0 to 4 words"].count + found["7 to 8 words"].count == COUNT
    for name in ("all", "left"):
        one = found[name]
        assert one.accuracy is not None and one.low is not None and one.high is not None
        assert one.low <= one.accuracy <= one.high and one.low < one.high


def test_tables_name_protocol_and_data_and_pairs_only_where_there_are_any() -> None:
    with_pairs, without = beyond(split()), beyond(split(pairs=False))
    assert [table.title for table in with_pairs.tables()] == ["Complementary pairs", "Kinds of questions", "Confidence"]
    assert [table.title for table in without.tables()] == ["Kinds of questions", "Confidence"]
    assert without.as_json()["complementary_pairs"] is None
    for table in with_pairs.tables():
        assert "protocol of 2021" in table.caption and split().name in table.caption
    assert [chart.heading for chart in with_pairs.charts()] == [
        "Confidence against accuracy",
        "Error of the surest answers",
    ]


def test_one_question_is_enough() -> None:
    dataset = split().take(np.asarray([1]))
    found = diagnose("mine", dataset, GIVEN.take(np.asarray([1])), CONFIDENCE_N[:1], np.ones(1), "2021")
    assert found.pairs is None and found.charts() and found.tables()
    assert found.as_json()["risk_coverage"]["coverage"] == [1.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["what"], "write name=REGEX"),
        (["=what"], "write name=REGEX"),
        (["a="], "write name=REGEX"),
        (["a=b", "a=c"], "slice 'a': the name is given twice"),
        (["a=(b"], r"'\(b' is not a regular expression"),
    ],
)
def test_slices_that_cannot_be_meant(given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_slices(given)


def test_a_pattern_may_hold_an_equals_sign() -> None:
    assert parse_slices(["sum=1=1"]) == {"sum": "1=1"}
