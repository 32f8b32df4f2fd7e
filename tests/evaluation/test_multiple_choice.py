"""Choices as classes, choices outside the vocabulary, and the pick."""

from math import log

import numpy as np
import pytest

from vqa.data.dataset import Strings
from vqa.evaluation.multiple_choice import choice_answer_ids, choice_classes, choice_scores, pick_choices
from vqa.text.vocabulary import AnswerVocabulary


def texts(column: Strings) -> list[str]:
    return [column.at(row) for row in range(len(column.codes))]


def test_choices_as_classes() -> None:
    choices = Strings.of_rows([["yes", "red"], ["no"]], 2)
    classes = choice_answer_ids(choices, AnswerVocabulary(("no", "yes")))
    assert classes.tolist() == [[1, -1], [0, -1]]
    assert classes.dtype == np.int32


def test_the_best_choice_is_picked_but_never_an_empty_cell() -> None:
    choices = Strings.of_rows([["yes", "red"], ["no"], ["a", "b"]], 2)
    scores = np.asarray([[0.1, 0.7], [-5, 9], [-np.inf, -np.inf]], dtype=np.float32)
    assert texts(pick_choices(choices, scores)) == ["red", "no", "a"]
    with pytest.raises(ValueError, match="not a number"):
        pick_choices(choices, np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="scores have shape"):
        pick_choices(choices, scores[:2])
    with pytest.raises(ValueError, match="row 1 has no choice"):
        pick_choices(Strings.of_rows([["yes"], []], 1), np.zeros((2, 1)))


VOCABULARY = AnswerVocabulary(("yes", "on table", "table", "on chair", "t-shirt", "2"))
CHOICES = Strings.of_rows([["yes", "T shirt!", "two", "wooden table", "zebra"], ["on bed", "a table"]], 5)


def test_classes_of_choices_outside_the_vocabulary() -> None:
    found = choice_classes(CHOICES, VOCABULARY)
    of = {text: row for row, text in enumerate(CHOICES.distinct)}
    for text, answer in {"yes": 0, "T shirt!": 4, "two": 5, "a table": 2}.items():
        assert found.class_SK[of[text]].tolist() == [answer, -1, -1, -1]
        assert found.weight_SK[of[text]].tolist() == [1, 0, 0, 0]
    assert (found.class_SK[of["zebra"]] == -1).all()

    # Six classes; "table" and "on" are in two of them, "wooden" and "bed" in none, which counts as one.
    common, rare = log(1 + 6 / 2), log(1 + 6 / 1)
    assert found.class_SK[of["wooden table"]].tolist() == [2, 1, -1, -1]
    expected = [common / (common + rare), common / (2 * common + rare), 0, 0]
    np.testing.assert_allclose(found.weight_SK[of["wooden table"]], expected, rtol=1e-6)
    assert found.class_SK[of["on bed"]].tolist() == [1, 3, -1, -1]


def test_scores_weigh_probabilities_and_restricting_leaves_outside_choices_out() -> None:
    probability_NA = np.asarray([[0.1, 0.3, 0.4, 0, 0.05, 0.15], [0, 0.2, 0.5, 0.3, 0, 0]], dtype=np.float32)
    wide = choice_classes(CHOICES, VOCABULARY)
    score_NC = choice_scores(CHOICES, wide, probability_NA)
    of = {text: row for row, text in enumerate(CHOICES.distinct)}
    weight = wide.weight_SK[of["wooden table"]]
    expected = [0.1, 0.05, 0.15, max(weight[0] * 0.4, weight[1] * 0.3), -np.inf]
    np.testing.assert_allclose(score_NC[0], expected, rtol=1e-6)
    assert np.isneginf(score_NC[1, 2:]).all()
    assert texts(pick_choices(CHOICES, score_NC)) == ["wooden table", "a table"]

    narrow = choice_scores(CHOICES, choice_classes(CHOICES, VOCABULARY, outside=False), probability_NA)
    ids = choice_answer_ids(CHOICES, VOCABULARY)
    assert np.isneginf(narrow[ids < 0]).all()
    np.testing.assert_allclose(narrow[0, 0], 0.1)
    assert texts(pick_choices(CHOICES, narrow)) == ["yes", "on bed"]


def test_an_outside_choice_never_beats_the_class_it_resembles() -> None:
    rng = np.random.default_rng(0)
    words = ["red", "blue", "big", "dog", "cat", "on", "table"]
    answers = AnswerVocabulary(tuple(dict.fromkeys(" ".join(rng.permutation(words)[: 1 + i % 3]) for i in range(30))))
    choices = Strings.of_rows([["big red dog table", *answers.answers]], 1 + len(answers))
    for _ in range(20):
        probability_NA = rng.dirichlet(np.ones(len(answers)))[None]
        score_NC = choice_scores(choices, choice_classes(choices, answers), probability_NA)
        assert texts(pick_choices(choices, score_NC)) == [answers.answers[int(probability_NA.argmax())]]


def test_logits_are_refused() -> None:
    with pytest.raises(ValueError, match="negative or not numbers"):
        choice_scores(CHOICES, choice_classes(CHOICES, VOCABULARY), np.full((2, 6), -0.5))
