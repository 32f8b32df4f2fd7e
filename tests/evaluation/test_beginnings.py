"""Floors that look questions up, against a search through all training questions, one by one."""

from collections import Counter

import numpy as np
from helpers.metric import qa_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa.data.dataset import QADataset, Strings
from vqa.evaluation.accuracy import score
from vqa.evaluation.beginnings import look_up
from vqa.evaluation.scores import BEGINNING_PRIOR, MOST_POPULAR, QUESTION_PRIOR, TYPE_PRIOR, floor_above, with_bounds
from vqa.text.tokenize import tokenize

QUESTIONS = ["what is it?", "What is it", "what is that thing?", "what", "is it red?", "is it", "", "how many?"]
ANSWERS = ["yes", "no", "2", "red"]
QUESTION, ANSWER = st.sampled_from(QUESTIONS), st.sampled_from(ANSWERS)
PAIRS = st.lists(st.tuples(QUESTION, ANSWER), min_size=1, max_size=14)


def train_of(pairs: list[tuple[str, str]]) -> QADataset:
    return qa_dataset(
        [[answer] for _, answer in pairs], majority=[a for _, a in pairs], questions=[q for q, _ in pairs]
    )


def best(answers: list[str], everything: list[str]) -> str:
    """The most frequent, then the more frequent in all of training, then the alphabetically first."""
    count, overall = Counter(answers), Counter(everything)
    return min(count, key=lambda answer: (-count[answer], -overall[answer], answer))


def after(pairs: list[tuple[str, str]], words: list[str], *, whole: bool = False) -> list[str]:
    """The answers to questions that begin with these words, or are these words."""
    asked = [(tokenize(question), answer) for question, answer in pairs]
    return [a for tokens, a in asked if (tokens == words if whole else tokens[: len(words)] == words)]


def by_hand(pairs: list[tuple[str, str]], question: str) -> tuple[str, str]:
    """The most frequent answer to the same words, and to the longest beginning, of which the whole is the longest."""
    everything, words = [answer for _, answer in pairs], tokenize(question)
    same = after(pairs, words, whole=True)
    known = next(found for n in range(len(words), -1, -1) if (found := after(pairs, words[:n])))
    return best(same or everything, everything), best(same or known, everything)


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.lists(QUESTION, min_size=1, max_size=6), st.data())
def test_answers_are_those_of_a_search_by_hand(
    pairs: list[tuple[str, str]], asked: list[str], data: st.DataObject
) -> None:
    train = train_of([*pairs, ("never is it asked", "never")])
    train = train.take(np.arange(len(pairs)))  # whose columns still name what was taken out
    evaluated = qa_dataset([["x"]] * len(asked), questions=asked)
    found = look_up(train, evaluated)
    assert found.question_choice is None and found.beginning_choice is None
    assert found.question is not None and found.beginning is not None
    for row, question in enumerate(asked):
        assert (found.question.at(row), found.beginning.at(row)) == by_hand(pairs, question)

    choices = [
        data.draw(st.lists(st.sampled_from([*ANSWERS, "cat"]), min_size=1, max_size=4, unique=True)) for _ in asked
    ]
    chosen = look_up(train, qa_dataset([["x"]] * len(asked), questions=asked, choices=choices), choosing=True)
    assert chosen.question_choice is not None and chosen.beginning_choice is not None
    for row, question in enumerate(asked):
        same, beginning = choose_by_hand(pairs, question, choices[row])
        assert (chosen.question_choice.at(row), chosen.beginning_choice.at(row)) == (same, beginning)


def choose_by_hand(pairs: list[tuple[str, str]], question: str, choices: list[str]) -> tuple[str, str]:
    overall, words = Counter(answer for _, answer in pairs), tokenize(question)

    def pick(given: list[list[str]]) -> str:
        counts = next((count for one in given if any((count := Counter(one))[c] for c in choices)), Counter())
        return min(choices, key=lambda choice: (-counts[choice], -overall[choice], choices.index(choice)))

    same = after(pairs, words, whole=True)
    return pick([same]), pick([same, *(after(pairs, words[:n]) for n in range(len(words), -1, -1))])


def test_every_floor_is_there_and_the_highest_above_the_model_is_named() -> None:
    pairs = [("what is it?", "2")] * 2 + [("what is that?", "red")] * 3 + [("is it?", "yes")] * 4
    types = ["what"] * 5 + ["is"] * 4
    train = qa_dataset([[a] for _, a in pairs], majority=[a for _, a in pairs], questions=[q for q, _ in pairs],
                       question_type=types)  # fmt: skip
    right = Strings.of(["no"] * len(pairs))
    scored = with_bounds("mine", {"open-ended": right}, train, train, None, "2021")
    floors = {row.name: row.open_ended.overall for row in scored if row.kind == "floor" and row.open_ended}
    assert floors == {MOST_POPULAR: 44.44, TYPE_PRIOR: 77.78, QUESTION_PRIOR: 100.0, BEGINNING_PRIOR: 100.0}
    assert floor_above(scored, "open-ended") == QUESTION_PRIOR and not floor_above(scored, "multiple-choice")
    assert train.majority is not None and score(train, train.majority).overall == 100
    best_of_all = with_bounds("mine", {"open-ended": train.majority}, train, train, None, "2021")
    assert floor_above(best_of_all, "open-ended") == ""
    untyped = with_bounds("mine", {"open-ended": right}, train_of(pairs), train_of(pairs), None, "2021")
    assert TYPE_PRIOR not in {row.name for row in untyped}
