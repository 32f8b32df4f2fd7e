"""Floors and ceilings, against exhaustive search on small data sets."""

import itertools

import numpy as np
import pytest
from helpers.metric import golden_dataset, qa_dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vqa.data.dataset import Strings
from vqa.errors import InputError
from vqa.evaluation.accuracy import PROTOCOLS, Protocol, score
from vqa.evaluation.floors import (
    most_popular_choice,
    prior_choice_per_question_type,
    prior_per_question_type,
    question_only_bound,
    random_choice,
    vocabulary_ceiling,
)
from vqa.text.vocabulary import AnswerVocabulary


def texts(column: Strings) -> list[str]:
    return [column.at(row) for row in range(len(column.codes))]


TRAIN = qa_dataset(
    [["x"] * 10] * 7,
    majority=["yes", "no", "no", "red", "blue", "yes", "yes"],
    question_type=["is", "is", "is", "what", "what", "are", "are"],
)


def test_prior_per_question_type_breaks_ties_alphabetically_and_falls_back() -> None:
    evaluated = qa_dataset([["x"]] * 4, question_type=["what", "is", "how", "are"])
    assert texts(prior_per_question_type(TRAIN, evaluated)) == ["blue", "no", "yes", "yes"]
    assert texts(prior_per_question_type(TRAIN, qa_dataset([["x"]]))) == ["yes"]


def test_priors_restricted_to_choices() -> None:
    evaluated = qa_dataset(
        [["x"]] * 4,
        question_type=["is", "is", "what", "how"],
        choices=[["yes", "no"], ["red", "yes", "cat"], ["cat", "no", "dog"], ["dog", "cat"]],
    )
    assert texts(prior_choice_per_question_type(TRAIN, evaluated)) == ["no", "yes", "no", "dog"]
    assert texts(most_popular_choice(TRAIN, evaluated)) == ["yes", "yes", "no", "dog"]
    with pytest.raises(InputError, match="has no choices"):
        most_popular_choice(TRAIN, qa_dataset([["x"]]))
    with pytest.raises(InputError, match="needs a training split with answers"):
        prior_per_question_type(qa_dataset([["x"]]), evaluated)


def test_random_choice_is_the_mean_over_choices() -> None:
    dataset = qa_dataset([["yes"] * 8 + ["no"] * 2, ["1"] * 10], choices=[["yes", "no", "cat", "maybe"], ["1", "2"]])
    assert random_choice(dataset).mean() == pytest.approx(((1 + 0.6) / 4 + 1 / 2) / 2)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ceiling_is_the_best_of_the_vocabulary(protocol: Protocol) -> None:
    dataset = golden_dataset().take(np.arange(0, 3000, 30))
    vocabulary = AnswerVocabulary(("yes", "no", "2", "two", "The cat", "white", "red", "table", "t-shirt", "0", "none"))
    best = np.zeros(len(dataset))
    for answer in vocabulary.answers:
        best = np.maximum(best, score(dataset, Strings.of([answer] * len(dataset)), protocol).accuracy_N)
    ceiling = score(dataset, vocabulary_ceiling(dataset, vocabulary, protocol), protocol)
    assert best.max() == 1
    np.testing.assert_allclose(ceiling.accuracy_N, best)


ANSWERS = ["yes", "Yes", "no", "the cat", "cat", "two", "2"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("pq"), st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=5)),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(PROTOCOLS),
)
@example([("p", ["yes"]), ("p", ["2", "two"])], "2021")
def test_question_only_bound_is_the_best_table_of_answers(
    rows: list[tuple[str, list[str]]], protocol: Protocol
) -> None:
    dataset = qa_dataset([humans for _, humans in rows], questions=[question for question, _ in rows])
    best = max(
        score(dataset, Strings.of([{"p": p, "q": q}[question] for question, _ in rows]), protocol).accuracy_N.mean()
        for p, q in itertools.product(ANSWERS, repeat=2)
    )
    assert question_only_bound(dataset, protocol) == pytest.approx(100 * best)
