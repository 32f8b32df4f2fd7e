"""A run's scores between its floors and ceilings, both tasks: what every accuracy is shown beside.

Floors: a choice drawn at random (expected), the most popular answer or choice, the prior per question type. Ceilings:
what the humans reach among themselves, the best choice, the best that the answer vocabulary allows.
"""

import numpy as np

from vqa.data.dataset import ABSENT, QADataset, Strings
from vqa.evaluation.accuracy import Protocol, Score, score, summarise
from vqa.evaluation.diagnose import human_agreement
from vqa.evaluation.floors import (
    best_choice,
    most_popular_answer,
    most_popular_choice,
    prior_choice_per_question_type,
    prior_per_question_type,
    random_choice,
    vocabulary_ceiling,
)
from vqa.evaluation.results import Task
from vqa.evaluation.scores import ModelScores
from vqa.text.vocabulary import AnswerVocabulary

PRIOR = "most frequent answer per question type"
POPULAR = "most popular answer or choice"
RANDOM = "random choice (expected)"
HUMANS = "human agreement"
CEILING = "best the answer vocabulary allows"
BEST_CHOICE = "best of the choices"


def with_bounds(
    name: str,
    answers: dict[Task, Strings],
    train: QADataset | None,
    dataset: QADataset,
    vocabulary: AnswerVocabulary | None,
    protocol: Protocol,
) -> tuple[ModelScores, ...]:
    """The run's scores, then floors from the lowest, then ceilings; the last is the vocabulary's.

    Args:
        name: what the run is called.
        answers: its predictions by task, each `[N]`.
        train: what the priors are learned from; None leaves them out.
        dataset: the split with its answers.
        vocabulary: the run's classes; None for a model that writes any answer, which has no such ceiling.

    Raises:
        InputError: the answers are hidden.
    """
    asked, chosen = answers.get("open-ended"), answers.get("multiple-choice")

    def scored(predictions: Strings) -> Score:
        return score(dataset, predictions, protocol)

    def drawn(accuracy_N: np.ndarray) -> Score:
        return summarise(dataset, accuracy_N, protocol)

    rows = [ModelScores(name, scored(asked) if asked else None, scored(chosen) if chosen else None)]
    if chosen:
        rows.append(ModelScores(RANDOM, None, drawn(random_choice(dataset, protocol)), "floor"))
    if train is not None:
        rows.append(
            ModelScores(
                POPULAR,
                scored(most_popular_answer(train, dataset)) if asked else None,
                scored(most_popular_choice(train, dataset)) if chosen else None,
                "floor",
            )
        )
        rows.append(
            ModelScores(
                PRIOR,
                scored(prior_per_question_type(train, dataset)) if asked else None,
                scored(prior_choice_per_question_type(train, dataset)) if chosen else None,
                "floor",
            )
        )
    if asked and has_agreement(dataset):
        rows.append(ModelScores(HUMANS, human_agreement(dataset, protocol), None, "ceiling"))
    if chosen:
        rows.append(ModelScores(BEST_CHOICE, None, drawn(best_choice(dataset, protocol)), "ceiling"))
    if asked and vocabulary is not None:
        rows.append(ModelScores(CEILING, scored(vocabulary_ceiling(dataset, vocabulary, protocol)), None, "ceiling"))
    return tuple(rows)


def has_agreement(dataset: QADataset) -> bool:
    """Whether every question has two human answers or more."""
    return dataset.answers is not None and bool(((dataset.answers.codes != ABSENT).sum(axis=1) > 1).all())


def find_row(scored: tuple[ModelScores, ...], name: str) -> ModelScores | None:
    """The row of that name, or None."""
    return next((row for row in scored if row.name == name), None)


def type_rows(scored: tuple[ModelScores, ...]) -> tuple[ModelScores, ...]:
    """The rows that a table by question type has room for: the runs, the prior, and the ceilings."""
    return tuple(row for row in scored if row.kind in ("run", "ceiling") or row.name == PRIOR)
