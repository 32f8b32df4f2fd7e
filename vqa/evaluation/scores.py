"""A model's scores between floors and ceilings, in both tasks, and the tables that show them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import QADataset, Strings
from vqa.errors import InputError
from vqa.evaluation.accuracy import Protocol, Score, exact_match_name, protocol_name, score, summarise
from vqa.evaluation.beginnings import look_up
from vqa.evaluation.floors import (
    best_choice,
    has_agreement,
    human_agreement,
    most_popular_answer,
    most_popular_choice,
    prior_choice_per_question_type,
    prior_per_question_type,
    random_choice,
    vocabulary_ceiling,
)
from vqa.evaluation.results import TASKS, Task
from vqa.tables import Column, Kind, Row, Table, below_floor
from vqa.text.vocabulary import AnswerVocabulary

RANDOM_CHOICE = "random choice (expected)"
MOST_POPULAR = "most popular answer or choice"
QUESTION_PRIOR = "most frequent answer to the question"
BEGINNING_PRIOR = "most frequent answer to its longest known beginning"
TYPE_PRIOR = "most frequent answer per question type"
HUMAN_AGREEMENT = "human agreement"
BEST_CHOICE = "best of the choices"
VOCABULARY_CEILING = "best the answer vocabulary allows"


class ModelScores(NamedTuple):
    """A run, floor or ceiling with its scores; None for a task it was not scored on."""

    name: str
    open_ended: Score | None = None
    multiple_choice: Score | None = None
    kind: Kind = "run"

    def of(self, task: Task) -> Score | None:
        """Its score in one task."""
        return self.open_ended if task == "open-ended" else self.multiple_choice

    def as_json(self) -> dict[str, Any]:
        """Accuracies in percent by task, for `evaluation_<split>.json`."""
        return {
            task.replace("-", "_"): {
                "overall": found.overall,
                "per_answer_type": found.per_answer_type,
                "per_question_type": found.per_question_type,
            }
            for task in TASKS
            if (found := self.of(task)) is not None
        }


class LearnedFloor(NamedTuple):
    """A floor that is learned from a training split: its name, and its answer to each question by task, each `[N]`."""

    name: str
    answers: Strings | None
    choices: Strings | None


def learned_floors(
    train: QADataset, dataset: QADataset, *, open_ended: bool, choosing: bool
) -> tuple[LearnedFloor, ...]:
    """From what knows least of a question to what knows most; None for a task that is not asked for."""
    plain = [(MOST_POPULAR, most_popular_answer, most_popular_choice)]
    if train.question_type is not None and dataset.question_type is not None:
        plain.append((TYPE_PRIOR, prior_per_question_type, prior_choice_per_question_type))
    found = [
        LearnedFloor(name, answer(train, dataset) if open_ended else None, choice(train, dataset) if choosing else None)
        for name, answer, choice in plain
    ]
    known = look_up(train, dataset, open_ended=open_ended, choosing=choosing)
    return (
        *found,
        LearnedFloor(QUESTION_PRIOR, known.question, known.question_choice),
        LearnedFloor(BEGINNING_PRIOR, known.beginning, known.beginning_choice),
    )


def with_bounds(
    name: str,
    answers: Mapping[Task, Strings],
    train: QADataset | None,
    dataset: QADataset,
    vocabulary: AnswerVocabulary | None,
    protocol: Protocol,
) -> tuple[ModelScores, ...]:
    """The model's scores, then floors from what knows least of a question to what knows most, then ceilings; the last
    is the vocabulary's.

    Args:
        name: what the model is called.
        answers: its answers by task, each `[N]`.
        train: what the priors are learned from; None leaves them out.
        dataset: the split with its answers.
        vocabulary: the model's classes; None for a model that writes any answer, which has no such ceiling.

    Raises:
        InputError: the answers are hidden.
    """
    open_ended, choosing = "open-ended" in answers, "multiple-choice" in answers

    def scored(found: Strings | NDArray[np.float64] | None) -> Score | None:
        """The score of answers `[N]`, or of accuracies float64 `[N]`."""
        if isinstance(found, Strings):
            return score(dataset, found, protocol)
        return None if found is None else summarise(dataset, found, protocol)

    def row(name: str, kind: Kind, *found: Strings | NDArray[np.float64] | None) -> ModelScores:
        open_ended, multiple_choice = map(scored, found)
        return ModelScores(name, open_ended, multiple_choice, kind)

    rows = [row(name, "run", answers.get("open-ended"), answers.get("multiple-choice"))]
    if choosing:
        rows.append(row(RANDOM_CHOICE, "floor", None, random_choice(dataset, protocol)))
    for floor in learned_floors(train, dataset, open_ended=open_ended, choosing=choosing) if train is not None else ():
        rows.append(row(floor.name, "floor", floor.answers, floor.choices))
    if open_ended and has_agreement(dataset):
        rows.append(ModelScores(HUMAN_AGREEMENT, human_agreement(dataset, protocol), None, "ceiling"))
    if choosing:
        rows.append(row(BEST_CHOICE, "ceiling", None, best_choice(dataset, protocol)))
    if open_ended and vocabulary is not None:
        rows.append(row(VOCABULARY_CEILING, "ceiling", vocabulary_ceiling(dataset, vocabulary, protocol), None))
    return tuple(rows)


def floor_above(scored: Sequence[ModelScores], task: Task) -> str:
    """Which floor the first of the rows, the model, is below in a task: the highest one; "" where it beats them all.

    A floor as high as the model is not above it.
    """
    own = scored[0].of(task)
    floors = {row.name: found.overall for row in scored if row.kind == "floor" and (found := row.of(task)) is not None}
    return "" if own is None else below_floor(own.overall, floors)


def type_rows(scored: Sequence[ModelScores]) -> tuple[ModelScores, ...]:
    """The rows that a table by question type has room for: the runs, the prior, and the ceilings."""
    return tuple(row for row in scored if row.kind in ("run", "ceiling") or row.name == TYPE_PRIOR)


def accuracy_table(scored: Sequence[ModelScores], *, data: str, title: str = "Accuracy", note: str = "") -> Table:
    """Both tasks side by side: accuracy over all questions, then per answer type.

    Args:
        scored: in the order to show, floors and ceilings last.
        data: what was scored, for the caption: "vqa_v2 val2014".

    Raises:
        InputError: when the scores are of different protocols or there are none.
    """
    tasks = {
        "Open-ended": [one.open_ended for one in scored],
        "Multiple choice": [one.multiple_choice for one in scored],
    }
    tasks = {name: scores for name, scores in tasks.items() if any(scores)}
    columns, values_CR = [], []
    for task, scores in tasks.items():
        types = list(dict.fromkeys(name for one in scores if one for name in one.per_answer_type))
        columns.append(Column("all", task))
        values_CR.append([one.overall if one else None for one in scores])
        for name in sorted(types, key=type_order):
            columns.append(Column(name, task))
            values_CR.append([one.per_answer_type.get(name) if one else None for one in scores])
    rows = tuple(Row(one.name, tuple(values[r] for values in values_CR), kind=one.kind) for r, one in enumerate(scored))
    caption = _caption([score for scores in tasks.values() for score in scores if score], data)
    return Table(title, caption, tuple(columns), rows, note)


def question_type_table(scored: Sequence[ModelScores], task: Task, *, data: str, note: str = "") -> Table:
    """One task's accuracy per question type: a row a type, a column a run.

    Raises:
        InputError: when the scores are of different protocols or there are none.
    """
    shown = [(one, found) for one in scored if (found := one.of(task)) is not None]
    names = sorted({name for _, score in shown for name in score.per_question_type})
    rows = tuple(Row(name, tuple(score.per_question_type.get(name) for _, score in shown)) for name in names)
    columns = tuple(Column(one.name, kind=one.kind) for one, _ in shown)
    title = f"Accuracy per question type, {task}"
    caption = _caption([score for _, score in shown], data)
    return Table(title, caption, columns, rows, note, row_heading="Question type", best="row")


def type_order(name: str) -> tuple[int, str]:
    """Sorts answer types: the official ones in their order, then others by name."""
    official = ("yes/no", "number", "other")
    return (official.index(name) if name in official else len(official), name)


def _caption(scores: Sequence[Score], data: str) -> str:
    protocols = sorted({score.protocol for score in scores})
    if len(protocols) != 1:
        raise InputError(f"{data}: a table needs scores of one protocol, not {', '.join(protocols) or 'none'}")
    fewest, *_, most = sorted([len(score.question_id_N) for score in scores] * 2)
    questions = f"{fewest:,} questions" if fewest == most else f"{fewest:,} to {most:,} questions"
    if all(score.exact_match for score in scores):
        return f"{exact_match_name(protocols[0]).capitalize()}, in percent, {data}, {questions}."
    return f"VQA accuracy in percent, {protocol_name(protocols[0])}, {data}, {questions}."
