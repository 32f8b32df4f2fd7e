"""The metric: the official program's own outputs, and a brute-force leave-one-out."""

import copy
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from helpers.metric import golden, golden_dataset, golden_predictions, qa_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa.data.dataset import QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.accuracy import PROTOCOLS, Protocol, leave_one_out, metric_name, round_percent, score, spelling_note
from vqa.text.normalise import Spelling


@pytest.fixture(scope="module")
def official() -> tuple[QADataset, Strings]:
    dataset = golden_dataset()
    return dataset, golden_predictions(dataset)


@pytest.mark.parametrize("protocol", ["2021", "2015"])
def test_equals_the_official_program(official: tuple[QADataset, Strings], protocol: Protocol) -> None:
    dataset, predictions = official
    expected = golden(f"expected_{protocol}.json")
    assert score(dataset, predictions, protocol).official() == expected | {"protocol": protocol}


def test_equals_the_evaluation_harness(official: tuple[QADataset, Strings]) -> None:
    dataset, predictions = official
    expected = golden("expected_harness.json")
    found = score(dataset, predictions, "harness")
    assert (found.accuracy_N >= score(dataset, predictions, "2021").accuracy_N).all()
    assert 100 * found.accuracy_N.mean() == pytest.approx(expected["overall"], abs=1e-9)
    assert found.official()["perQuestion"] == {key: round(value, 2) for key, value in expected["perQuestion"].items()}


def test_changes_nothing_and_repeats_itself(official: tuple[QADataset, Strings]) -> None:
    dataset, predictions = official
    before = copy.deepcopy((dataset.answers, predictions))
    first = score(dataset, predictions).official()
    assert score(dataset, predictions).official() == first
    assert dataset.answers is not None and before[0] is not None
    assert dataset.answers.distinct == before[0].distinct
    assert (dataset.answers.codes == before[0].codes).all()
    assert predictions.distinct == before[1].distinct
    assert (predictions.codes == before[1].codes).all()


@pytest.mark.parametrize(
    ("humans", "prediction", "accuracy_2015", "accuracy_2021"),
    [
        (["the cat"] * 10, "the cat", 0, 100),
        (["2"] * 10, "two", 100, 0),
        (["yes"] * 10, "Yes", 100, 0),
        (["yes"] * 10, " yes\n", 100, 100),
        (["black"] * 10, "black.", 100, 0),
        (["t-shirt"] * 10, "t-shirt", 0, 100),
        (["on the table"] * 6 + ["table"] * 4, "on table", 0, 100),
        (["t-shirt"] * 9 + ["shirt"], "t-shirt", 100, 100),
        (["yes"] * 8 + ["no"] * 2, "no", 60, 60),
        (["cat"] * 3 + ["dog"] * 7, "cat", 90, 90),
        (["a"] * 3 + ["dog"] * 7, "...", 0, 90),
        (["yes", " yes"] * 5, "Yes.", 100, 0),
    ],
)
def test_hand_cases(humans: list[str], prediction: str, accuracy_2015: float, accuracy_2021: float) -> None:
    dataset, predictions = qa_dataset([humans]), Strings.of([prediction])
    assert score(dataset, predictions, "2015").overall == accuracy_2015
    assert score(dataset, predictions, "2021").overall == accuracy_2021


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=10))
def test_leave_one_out_equals_brute_force(matches: list[bool]) -> None:
    exact = sum(
        min(Fraction(1), Fraction(sum(matches[:human] + matches[human + 1 :]), 3)) for human in range(len(matches))
    ) / len(matches)
    match_NA = np.asarray([matches])
    assert leave_one_out(match_NA, np.ones_like(match_NA))[0] == pytest.approx(float(exact), abs=1e-15)
    padded_NA = np.pad(match_NA, ((0, 0), (0, 2)))
    present_NA = np.pad(np.ones_like(match_NA), ((0, 0), (0, 2)))
    assert leave_one_out(padded_NA, present_NA)[0] == leave_one_out(match_NA, np.ones_like(match_NA))[0]


@pytest.mark.parametrize("count", range(11))
def test_ten_answers_score_three_tenths_each(count: int) -> None:
    match_NA = np.asarray([[True] * count + [False] * (10 - count)])
    assert leave_one_out(match_NA, np.ones_like(match_NA))[0] == pytest.approx(min(0.3 * count, 1))


@pytest.mark.parametrize(("cats", "dogs", "printed"), [(1, 1, 5.62), (3, 2, 13.13), (1, 2, 9.38), (3, 0, 5.62)])
def test_ties_of_the_mean_round_as_the_official_program_does(cats: int, dogs: int, printed: float) -> None:
    # Over 16 questions these means are halves of a hundredth, on which side the order of additions decides. `printed`
    # is what the official program prints under Python 2.7.
    humans = ["cat"] + ["dog"] * 2 + ["cow"] * 7
    predictions = ["cat"] * cats + ["dog"] * dogs + ["bird"] * (16 - cats - dogs)
    assert score(qa_dataset([humans] * 16), Strings.of(predictions)).overall == printed


def test_exact_halves_round_away_from_zero() -> None:
    assert [round_percent(percent) for percent in (0.125, 5.625, 2.675, 100.0)] == [0.13, 5.63, 2.67, 100.0]


@pytest.mark.parametrize("protocol", ["2021", "2015"])
def test_one_answer_is_exact_match(protocol: Protocol) -> None:
    dataset = qa_dataset([["night_stand"], ["t-shirt"], ["2"], ["yes", "yes", "no"]])
    scored = score(dataset, Strings.of(["night_stand ", "t-shirt", "two", "yes"]), protocol)
    assert scored.accuracy_N.tolist() == pytest.approx([1, 1, 0, 4 / 9])


def test_one_answer_is_normalised_on_both_sides_by_the_harnesses() -> None:
    dataset = qa_dataset([["t-shirt"], ["2"], ["the cat"], ["dog"]])
    scored = score(dataset, Strings.of(["T shirt.", "two", "cat", "a dog now"]), "harness")
    assert scored.accuracy_N.tolist() == [1, 1, 1, 0]


def test_no_answer_scores_nothing() -> None:
    dataset = qa_dataset([["yes"] * 10, ["a"] * 5 + ["the"] * 5])
    assert score(dataset, Strings.of([None, None])).overall == 0


def test_types_are_averaged_over_their_own_questions() -> None:
    dataset = qa_dataset([["yes"] * 10] * 3, question_type=["is", "are", "is"], answer_type=["yes/no"] * 3)
    scored = score(dataset, Strings.of(["yes", "no", "no"]))
    assert scored.per_question_type == {"is": 50.0, "are": 0.0}
    assert scored.per_answer_type == {"yes/no": 33.33}


def test_bad_input_is_named() -> None:
    dataset = qa_dataset([["yes"] * 10])
    with pytest.raises(InputError, match="unknown protocol '2012'"):
        score(dataset, Strings.of(["yes"]), "2012")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="made val2014: the answers of this split are hidden"):
        score(qa_dataset(None, ids=[7]), Strings.of(["yes"]))
    with pytest.raises(InputError, match="question 8 has no human answer"):
        score(qa_dataset([["yes"], []], ids=[7, 8]), Strings.of(["yes", "no"]))
    with pytest.raises(InputError, match="no question to score"):
        score(qa_dataset([]), Strings.of([]))
    with pytest.raises(ValueError, match="predictions have shape"):
        score(dataset, Strings.of(["yes", "no"]))


@pytest.mark.parametrize("spelling", ["lower", "official"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_spelling_is_for_exact_match_and_leaves_official_numbers(
    official: tuple[QADataset, Strings], protocol: Protocol, spelling: Spelling
) -> None:
    """VQA accuracy has rules of its own, so `answers.normalise` moves no number of a set with ten answers."""
    dataset, predictions = official
    spelt = replace(dataset, spelling=spelling)
    assert score(spelt, predictions, protocol).official() == score(dataset, predictions, protocol).official()
    assert metric_name(spelt, protocol) == metric_name(dataset, protocol) and not spelling_note(spelt)


@pytest.mark.parametrize(
    ("answer", "prediction", "lower", "official"),
    [("Yes", "yes", 1, 1), ("Yes.", "yes", 0, 1), ("yes", "no", 0, 0), ("T-shirt", "t shirt", 0, 1), ("", "x", 0, 0)],
)
def test_exact_match_by_spelling(answer: str, prediction: str, lower: int, official: int) -> None:
    expected: dict[Spelling, int] = {"lower": lower, "official": official}
    for spelling, right in expected.items():
        dataset = replace(qa_dataset([[answer or "?"]]), spelling=spelling)
        assert score(dataset, Strings.of([prediction])).overall == 100 * right
        assert spelling in spelling_note(dataset)
