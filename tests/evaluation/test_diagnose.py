"""Diagnosis against figures worked out by hand and against brute force."""

import numpy as np
import pytest
from helpers.metric import qa_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa.data.dataset import QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.accuracy import score
from vqa.evaluation.diagnose import (
    calibration,
    confidence_interval,
    pair_report,
    risk_coverage,
    slice_by_length,
    slice_by_pattern,
)
from vqa.evaluation.floors import human_agreement


def test_pairs() -> None:
    dataset = qa_dataset([["x"]] * 6, ids=[60, 10, 20, 30, 40, 50], pairs=[(10, 20), (40, 30), (50, 60), (10, 99)])
    accuracy_N = np.asarray([0.3, 1.0, 0.6, 1.0, 0.0, 0.0])  # of 60, 10, 20, 30, 40, 50
    predictions = Strings.of(["a", "a", "b", "c", "c", "b"])
    report = pair_report(dataset, accuracy_N, predictions)
    assert report.pairs == 3  # 99 is not in this split
    assert report.both_right == pytest.approx(100 / 3)  # 10 and 20
    assert report.one_right == pytest.approx(200 / 3)  # and 30
    assert report.consistency == pytest.approx(50)
    assert report.same_answer == pytest.approx(100 / 3)  # 30 and 40
    assert pair_report(dataset, np.zeros(6)).consistency is None
    with pytest.raises(InputError, match="no complementary pairs"):
        pair_report(qa_dataset([["x"]]), np.zeros(1))
    with pytest.raises(InputError, match="no complementary pair has both"):
        pair_report(qa_dataset([["x"]], pairs=[(0, 9)]), np.zeros(1))


def test_human_agreement_is_each_human_scored_against_the_others() -> None:
    rows = [["yes"] * 10, ["Yes"] * 6 + ["yes."] + ["no"] * 3, ["a", "b", "c", "d"], ["cat", "cat"]]
    scored = human_agreement(qa_dataset(rows))
    expected = []
    for humans in rows:
        alone = []
        for human, answer in enumerate(humans):
            others = humans[:human] + humans[human + 1 :]
            same = sum(o.lower().strip(".") == answer.lower().strip(".") for o in others)
            alone.append(min(1, same / 3))
        expected.append(sum(alone) / len(alone))
    assert scored.accuracy_N.tolist() == pytest.approx(expected)
    assert expected == pytest.approx([1, (7 + 3 * 2 / 3) / 10, 0, 1 / 3])
    with pytest.raises(InputError, match="question 0 has one human answer"):
        human_agreement(qa_dataset([["yes"], ["yes", "no"]]))


def test_calibration_by_hand() -> None:
    confidence_N = np.asarray([0.95, 0.95, 0.55, 0.05, 1.0, 0.0], dtype=np.float32)
    accuracy_N = np.asarray([1.0, 0.0, 0.6, 0.0, 1.0, 0.0])
    report = calibration(confidence_N, accuracy_N, bins=10)
    assert report.count_B.tolist() == [2, 0, 0, 0, 0, 1, 0, 0, 0, 3]
    gaps = [abs(0 - 0.025), abs(0.6 - 0.55), abs(2 / 3 - 2.9 / 3)]
    assert report.ece == pytest.approx(100 * (2 * gaps[0] + gaps[1] + 3 * gaps[2]) / 6, abs=1e-4)
    assert np.isnan(report.accuracy_B[1])
    with pytest.raises(ValueError, match=r"not in 0\.\.1"):
        calibration(np.asarray([1.2]), np.asarray([1.0]))
    with pytest.raises(ValueError, match=r"not in 0\.\.1"):
        calibration(np.asarray([np.nan]), np.asarray([1.0]))


def test_perfectly_calibrated_answers_have_no_error() -> None:
    rng = np.random.default_rng(0)
    confidence_N = rng.random(200_000)
    accuracy_N = (rng.random(200_000) < confidence_N).astype(float)
    assert calibration(confidence_N, accuracy_N).ece < 0.6
    assert calibration(confidence_N**2, accuracy_N).ece > 10


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.4, 0.9]), st.sampled_from([0.0, 0.3, 1.0])), min_size=1, max_size=6))
def test_risk_coverage_is_the_mean_over_every_order_of_ties(rows: list[tuple[float, float]]) -> None:
    confidence_N, accuracy_N = np.asarray(rows).T
    rng = np.random.default_rng(0)
    curves = []
    for _ in range(300):
        order = rng.permutation(len(rows))
        order = order[np.argsort(-confidence_N[order], kind="stable")]
        curves.append(1 - np.cumsum(accuracy_N[order]) / np.arange(1, len(rows) + 1))
    report = risk_coverage(confidence_N, accuracy_N)
    np.testing.assert_allclose(report.risk_N, np.mean(curves, axis=0), atol=0.2)
    assert report.risk_N[-1] == pytest.approx(1 - accuracy_N.mean())
    assert report.aurc >= report.best_aurc - 1e-9


def test_risk_coverage_by_hand() -> None:
    report = risk_coverage(np.asarray([0.2, 0.9, 0.5]), np.asarray([0.0, 1.0, 1.0]))
    assert report.coverage_N.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert report.risk_N.tolist() == pytest.approx([0, 0, 1 / 3])
    assert report.aurc == pytest.approx(100 / 9)
    assert report.best_aurc == report.aurc


def sliced() -> tuple[QADataset, np.ndarray]:
    questions = ["How many dogs?", "what is it", "Is this the left one or the right one?", "how many?"]
    dataset = qa_dataset([["x"]] * 4, questions=questions)
    return dataset, np.asarray([1.0, 0.0, 0.6, 0.3])


def test_slices_by_pattern() -> None:
    dataset, accuracy_N = sliced()
    many, left, none = slice_by_pattern(
        dataset, accuracy_N, {"counts": "^how many", "left": r"\bleft\b", "none": "zebra"}
    )
    assert (many.name, many.count, many.accuracy) == ("counts", 2, pytest.approx(65))
    assert (left.count, left.accuracy, left.low) == (1, pytest.approx(60), None)
    assert (none.count, none.accuracy, none.high) == (0, None, None)
    with pytest.raises(InputError, match=r"slice 'bad': '\(' is not a regular expression"):
        slice_by_pattern(dataset, accuracy_N, {"bad": "("})


def test_slices_by_length() -> None:
    dataset, accuracy_N = sliced()
    slices = slice_by_length(dataset, accuracy_N, (2, 3))
    assert [(s.name, s.count) for s in slices] == [("0 to 2 words", 1), ("3 to 3 words", 2), ("more than 3 words", 1)]
    with pytest.raises(InputError, match="rising numbers"):
        slice_by_length(dataset, accuracy_N, (3, 3))


def test_the_interval_covers_the_truth_and_counts_images() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(60):
        image_N = np.repeat(np.arange(40), 5)
        accuracy_N = np.repeat((rng.random(40) < 0.7).astype(float), 5)  # one draw an image
        low, high = confidence_interval(accuracy_N, image_N, resamples=300, seed=trial)
        assert low is not None and high is not None
        covered += low <= 70 <= high
    assert covered >= 50  # 55 here; drawing single questions instead covers 33


def test_the_interval_is_repeatable_and_needs_two_images() -> None:
    accuracy_N = np.asarray([0.0, 1.0, 0.3])
    assert confidence_interval(accuracy_N, np.arange(3)) == confidence_interval(accuracy_N, np.arange(3))
    assert confidence_interval(accuracy_N, np.zeros(3, dtype=np.int32)) == (None, None)


def test_agreement_bounds_a_model_that_copies_one_human() -> None:
    rows = [["yes"] * 7 + ["no"] * 3, ["red"] * 4 + ["blue"] * 6]
    copied = score(qa_dataset([humans[1:] for humans in rows]), Strings.of([humans[0] for humans in rows]))
    assert human_agreement(qa_dataset(rows)).overall <= 100
    assert copied.overall > 90
