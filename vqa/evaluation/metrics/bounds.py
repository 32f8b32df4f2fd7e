"""Floors and ceilings of a split by any metric of `METRICS`.

The answers of the floors are the same for every metric (`vqa.evaluation.floors`, `vqa.evaluation.beginnings`); what
they are worth is the metric's. Legend: `N` questions, `C` choices a question.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ABSENT, QADataset, Strings
from vqa.evaluation.beginnings import look_up
from vqa.evaluation.floors import (
    has_agreement,
    human_agreement,
    most_popular_answer,
    most_popular_choice,
    prior_choice_per_question_type,
    prior_per_question_type,
)
from vqa.evaluation.metrics import Metric, human_ceiling, measure
from vqa.evaluation.results import Task
from vqa.evaluation.scores import (
    BEGINNING_PRIOR,
    BEST_CHOICE,
    HUMAN_AGREEMENT,
    MOST_POPULAR,
    QUESTION_PRIOR,
    RANDOM_CHOICE,
    TYPE_PRIOR,
)
from vqa.tables import Kind


class Bound(NamedTuple):
    """A floor or a ceiling: its name, its kind, and its value for each question by each metric, float64 `[N]`."""

    name: str
    kind: Kind
    values: dict[str, NDArray[np.float64]]


def bounds(metrics: list[Metric], dataset: QADataset, train: QADataset | None, task: Task) -> list[Bound]:
    """Floors from what knows least of a question to what knows most, then ceilings.

    Args:
        metrics: what they are measured by.
        dataset: a split with answers.
        train: what the priors are learned from; None leaves them out.
        task: multiple choice has a random choice and a best one, and only choices as answers.

    Raises:
        InputError: the answers are hidden, or a metric cannot be computed from them.
    """
    choosing = task == "multiple-choice"
    found: list[Bound] = []
    choices = {metric.name: choice_values(metric, dataset) for metric in metrics} if choosing else {}
    if choosing:
        found.append(Bound(RANDOM_CHOICE, "floor", {name: np.nanmean(v, axis=1) for name, v in choices.items()}))
    for name, answers in floors_of(train, dataset, choosing) if train is not None else ():
        found.append(Bound(name, "floor", {metric.name: measure(metric, dataset, answers) for metric in metrics}))
    if choosing:
        found.append(Bound(BEST_CHOICE, "ceiling", {name: np.nanmax(v, axis=1) for name, v in choices.items()}))
    elif has_agreement(dataset):
        found.append(Bound(HUMAN_AGREEMENT, "ceiling", {one.name: _agreement(one, dataset) for one in metrics}))
    return found


def floors_of(train: QADataset, dataset: QADataset, choosing: bool) -> list[tuple[str, Strings]]:
    """The answers of each floor that is learned from a training split, each `[N]`."""
    popular = most_popular_choice if choosing else most_popular_answer
    found = [(MOST_POPULAR, popular(train, dataset))]
    if train.question_type is not None and dataset.question_type is not None:
        prior = prior_choice_per_question_type if choosing else prior_per_question_type
        found.append((TYPE_PRIOR, prior(train, dataset)))
    known = look_up(train, dataset, open_ended=not choosing, choosing=choosing)
    question, beginning = (
        (known.question_choice, known.beginning_choice) if choosing else (known.question, known.beginning)
    )
    assert question is not None and beginning is not None  # they were asked for
    return [*found, (QUESTION_PRIOR, question), (BEGINNING_PRIOR, beginning)]


def choice_values(metric: Metric, dataset: QADataset) -> NDArray[np.float64]:
    """The metric of every choice, float64 `[N, C]`; NaN in empty cells."""
    assert dataset.choices is not None
    code_NC, distinct = dataset.choices.codes, dataset.choices.distinct
    value_CN = [measure(metric, dataset, Strings(distinct, code_N)) for code_N in code_NC.T]
    return np.where(code_NC == ABSENT, np.nan, np.stack(value_CN, axis=1))


def _agreement(metric: Metric, dataset: QADataset) -> NDArray[np.float64]:
    if metric.protocol is not None:
        return human_agreement(dataset, metric.protocol).accuracy_N
    return human_ceiling(metric, dataset)
