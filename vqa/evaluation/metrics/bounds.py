"""Floors and ceilings of a split by any metric of `METRICS`.

The answers of the floors are the same for every metric (`vqa.evaluation.scores.learned_floors`); what
they are worth is the metric's. Legend: `N` questions, `C` choices a question.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ABSENT, QADataset, Strings
from vqa.evaluation.floors import has_agreement, human_agreement
from vqa.evaluation.metrics import Metric, human_ceiling, measure
from vqa.evaluation.results import Task
from vqa.evaluation.scores import BEST_CHOICE, HUMAN_AGREEMENT, RANDOM_CHOICE, learned_floors
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
    learned = () if train is None else learned_floors(train, dataset, open_ended=not choosing, choosing=choosing)
    for floor in learned:
        answers = floor.choices if choosing else floor.answers
        assert answers is not None  # they were asked for
        found.append(Bound(floor.name, "floor", {one.name: measure(one, dataset, answers) for one in metrics}))
    if choosing:
        found.append(Bound(BEST_CHOICE, "ceiling", {name: np.nanmax(v, axis=1) for name, v in choices.items()}))
    elif has_agreement(dataset):
        found.append(Bound(HUMAN_AGREEMENT, "ceiling", {one.name: _agreement(one, dataset) for one in metrics}))
    return found


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
