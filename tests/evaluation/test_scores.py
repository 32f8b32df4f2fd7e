"""What a run's accuracy is framed by, against brute force over the choices and hand-worked rows."""

import numpy as np
import pytest
from helpers.metric import qa_dataset

from vqa.data.dataset import Strings
from vqa.evaluation.accuracy import PROTOCOLS, Protocol, score
from vqa.evaluation.floors import best_choice, most_popular_answer, random_choice
from vqa.evaluation.scores import (
    BEGINNING_PRIOR,
    BEST_CHOICE,
    HUMAN_AGREEMENT,
    MOST_POPULAR,
    QUESTION_PRIOR,
    RANDOM_CHOICE,
    TYPE_PRIOR,
    VOCABULARY_CEILING,
    type_rows,
    with_bounds,
)
from vqa.text.vocabulary import AnswerVocabulary

ANSWERS = [["yes"] * 8 + ["no"] * 2, ["2"] * 3 + ["two"] * 3 + ["3"] * 4, ["The cat"] * 5 + ["cat"] * 5]
CHOICES = [["no", "yes", "maybe"], ["3", "2", "no", "yes"], ["dog", "a cat"]]
EVALUATED = qa_dataset(ANSWERS, choices=CHOICES, question_type=["is", "how many", "what"])
TRAIN = qa_dataset([["x"] * 10] * 4, majority=["no", "no", "cat", "2"], question_type=["is", "is", "what", "how many"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_random_and_best_choice_are_the_mean_and_the_greatest_of_each_choice_scored_alone(protocol: Protocol) -> None:
    alone = []
    for row, choices in enumerate(CHOICES):
        single = EVALUATED.take(np.asarray([row]))
        alone.append([score(single, Strings.of([choice]), protocol).accuracy_N[0] for choice in choices])
    np.testing.assert_allclose(random_choice(EVALUATED, protocol), [np.mean(values) for values in alone])
    np.testing.assert_array_equal(best_choice(EVALUATED, protocol), [max(values) for values in alone])


def test_most_popular_answer_is_one_for_all() -> None:
    popular = most_popular_answer(TRAIN, EVALUATED)
    assert [popular.at(row) for row in range(3)] == ["no"] * 3


def test_rows_run_from_the_run_over_floors_to_the_ceiling() -> None:
    vocabulary = AnswerVocabulary(("no", "2", "yes"))
    given = Strings.of(["yes", "2", "a cat"])
    rows = with_bounds("mine", {"open-ended": given, "multiple-choice": given}, TRAIN, EVALUATED, vocabulary, "2021")
    assert [row.name for row in rows] == [
        "mine", RANDOM_CHOICE, MOST_POPULAR, TYPE_PRIOR, QUESTION_PRIOR, BEGINNING_PRIOR, HUMAN_AGREEMENT, BEST_CHOICE,
        VOCABULARY_CEILING,
    ]  # fmt: skip
    assert [row.kind for row in rows] == ["run", *["floor"] * 5, *["ceiling"] * 3]
    assert [row.name for row in type_rows(rows)] == [
        "mine", TYPE_PRIOR, HUMAN_AGREEMENT, BEST_CHOICE, VOCABULARY_CEILING,
    ]  # fmt: skip
    overall = {row.name: row.open_ended.overall for row in rows if row.open_ended}
    # "two" is "2" and "The cat" is "cat" after normalisation: six humans say 2, ten say cat.
    assert overall["mine"] == 100.0
    assert overall[MOST_POPULAR] == 20.0  # 0.6 of the first question
    assert overall[TYPE_PRIOR] == 86.67  # "no" 0.6, "2" and "cat" right
    assert overall[VOCABULARY_CEILING] == 66.67  # no cat in the vocabulary
    chosen = next(row for row in rows if row.name == BEST_CHOICE)
    assert chosen.open_ended is None
    assert chosen.multiple_choice is not None and chosen.multiple_choice.overall == 100.0


def test_single_answers_have_no_agreement_and_one_task_no_bounds_of_the_other() -> None:
    single = qa_dataset([["yes"], ["no"]])
    train = qa_dataset([["yes"]], majority=["yes"])
    answers = {"open-ended": Strings.of(["yes", "yes"])}
    rows = with_bounds("mine", answers, train, single, AnswerVocabulary(("yes",)), "2021")  # type: ignore[arg-type]
    assert [row.name for row in rows] == ["mine", MOST_POPULAR, QUESTION_PRIOR, BEGINNING_PRIOR, VOCABULARY_CEILING]
    assert all(row.multiple_choice is None for row in rows)
