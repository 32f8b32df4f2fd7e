"""Tables of results: what they hold, and the same table as Markdown and as JSON."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from vqa.errors import InputError
from vqa.evaluation.accuracy import Score
from vqa.tables import Column, Kind, Row, Table


class ModelScores(NamedTuple):
    """A run, floor or ceiling with its scores; None for a task it was not scored on."""

    name: str
    open_ended: Score | None = None
    multiple_choice: Score | None = None
    kind: Kind = "run"


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
        for name in sorted(types, key=_type_order):
            columns.append(Column(name, task))
            values_CR.append([one.per_answer_type.get(name) if one else None for one in scores])
    rows = tuple(Row(one.name, tuple(values[r] for values in values_CR), kind=one.kind) for r, one in enumerate(scored))
    caption = _caption([score for scores in tasks.values() for score in scores if score], data)
    return Table(title, caption, tuple(columns), rows, note)


def question_type_table(
    scored: Sequence[ModelScores], task: Literal["open-ended", "multiple-choice"], *, data: str, note: str = ""
) -> Table:
    """One task's accuracy per question type: a row a type, a column a run.

    Raises:
        InputError: when the scores are of different protocols or there are none.
    """
    found = [(one, one.open_ended if task == "open-ended" else one.multiple_choice) for one in scored]
    shown = [(one, score) for one, score in found if score is not None]
    names = sorted({name for _, score in shown for name in score.per_question_type})
    rows = tuple(Row(name, tuple(score.per_question_type.get(name) for _, score in shown)) for name in names)
    columns = tuple(Column(one.name, kind=one.kind) for one, _ in shown)
    title = f"Accuracy per question type, {task}"
    caption = _caption([score for _, score in shown], data)
    return Table(title, caption, columns, rows, note, row_heading="Question type", best="row")


def _type_order(name: str) -> tuple[int, str]:
    official = ("yes/no", "number", "other")
    return (official.index(name) if name in official else len(official), name)


def _caption(scores: Sequence[Score], data: str) -> str:
    protocols = sorted({score.protocol for score in scores})
    if len(protocols) != 1:
        raise InputError(f"{data}: a table needs scores of one protocol, not {', '.join(protocols) or 'none'}")
    fewest, *_, most = sorted([len(score.question_id_N) for score in scores] * 2)
    questions = f"{fewest:,} questions" if fewest == most else f"{fewest:,} to {most:,} questions"
    return f"VQA accuracy in percent, official protocol of {protocols[0]}, {data}, {questions}."
