"""Official results files: `[{"question_id": 1, "answer": "yes"}, …]`, written and read with the official checks.

Source: the checks of the official loader (GT-Vision-Lab/VQA, vqa.py, loadRes): a list; the same set of question ids as
the annotations; and only where the question file's `task_type` is "Multiple Choice", written so, every answer literally
one of the question's choices. Stricter here: ids given twice, of which the official loader keeps the last, are refused,
and so is an answer outside of the choices of any question that has some, whatever the file's `task_type`.
"""

from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ABSENT, QADataset, Strings
from vqa.errors import InputError, shortened, unknown_name
from vqa.files import atomic_write, read_json

Task = Literal["open-ended", "multiple-choice"]
TASKS: tuple[Task, ...] = get_args(Task)
_OFFICIAL_TASK: dict[Task, str] = {"open-ended": "OpenEnded", "multiple-choice": "MultipleChoice"}
LISTED = 3  # ids, choices or names that a message lists; more are counted


class _Result(msgspec.Struct, gc=False):
    question_id: int
    answer: str


class _NamedResult(msgspec.Struct, gc=False):
    question_id: str | int  # of a data set whose ids are texts, "7" among them
    answer: str


def official_name(task: Task, dataset: QADataset, algorithm: str) -> str:
    """The file name that the challenge server asks for.

    >>> official_name("open-ended", test2015, "san")  # doctest: +SKIP
    'vqa_OpenEnded_mscoco_test2015_san_results.json'
    """
    return f"vqa_{_OFFICIAL_TASK[task]}_{dataset.data_type}_{dataset.split}_{algorithm}_results.json"


def write_results(path: Path, dataset: QADataset, predictions: Strings) -> None:
    """Write one answer a question in the official format, atomically.

    Raises:
        ValueError: `predictions` does not have one answer for each question.
    """
    if predictions.codes.shape != (len(dataset),) or (predictions.codes == ABSENT).any():
        raise ValueError(f"{path}: every one of {len(dataset)} questions needs an answer")
    answers = predictions.distinct
    results = [
        _NamedResult(question, answers[code])
        for question, code in zip(dataset.written_ids, predictions.codes.tolist(), strict=True)
    ]
    with atomic_write(path, "wb") as file:
        file.write(msgspec.json.encode(results))


def read_results(path: Path, dataset: QADataset, task: Task = "open-ended") -> Strings:
    """Read a results file for exactly the questions of `dataset`, in the data set's order.

    Raises:
        InputError: not a list of results, ids missing, unknown or given twice, or a multiple-choice answer that is
            not among the question's choices.
    """
    if task not in TASKS:
        raise InputError(unknown_name("task", task, TASKS))
    results = _decode(path) if dataset.question_names is None else _decode_named(path, dataset)
    ids_R = _ids(path, results)
    rows_R = _rows(path, dataset, ids_R)
    column = Strings.of([result.answer for result in results])
    codes_N = np.empty(len(dataset), dtype=np.int32)
    codes_N[rows_R] = column.codes
    predictions = Strings(column.distinct, codes_N)
    if task == "multiple-choice":
        check_choices(path, dataset, predictions)
    return predictions


def _decode_named(path: Path, dataset: QADataset) -> list[_Result]:
    """Results for a data set whose ids are texts, by the numbers that these questions have here."""
    number = dict(zip(map(str, dataset.written_ids), dataset.question_id_N.tolist(), strict=True))
    results = _decode(path, _NamedResult)
    unknown = [str(result.question_id) for result in results if str(result.question_id) not in number]
    if unknown:
        shown = ", ".join(unknown[:LISTED]) + (", …" if len(unknown) > LISTED else "")
        raise InputError(f"{path}: {len(unknown)} questions are not in {dataset.name} ({shortened(shown)})")
    return [_Result(number[str(result.question_id)], result.answer) for result in results]


def _decode(path: Path, type: type[Any] = _Result) -> list[Any]:
    try:
        return read_json(path, list[type])  # type: ignore[valid-type]
    except InputError as error:
        if not isinstance(error.__cause__ or error.__context__, msgspec.ValidationError):
            raise
        expected = 'a results file is a list of {"question_id": integer, "answer": "text"}'
        raise InputError(f"{error}; {expected}") from None


def _ids(path: Path, results: list[_Result]) -> NDArray[np.int64]:
    try:
        return np.asarray([result.question_id for result in results], dtype=np.int64)
    except OverflowError:
        largest = max((result.question_id for result in results), key=abs)
        raise InputError(f"{path}: question id {largest} is beyond 64 bits") from None


def _rows(path: Path, dataset: QADataset, ids_R: NDArray[np.int64]) -> NDArray[np.intp]:
    """The data set's row of each result; raises InputError unless both hold the same ids, each once."""
    order = np.argsort(dataset.question_id_N)
    place_R = np.searchsorted(dataset.question_id_N[order], ids_R)
    known_R = place_R < len(order)
    row_R = order[place_R[known_R]]
    known_R[known_R] = dataset.question_id_N[row_R] == ids_R[known_R]
    row_R = order[place_R[known_R]]
    times_N = np.bincount(row_R, minlength=len(dataset))
    problems = []
    for ids, problem in (
        (dataset.question_id_N[times_N > 1], "answered twice or more"),
        (ids_R[~known_R], f"not in {dataset.name}"),
        (dataset.question_id_N[times_N == 0], "without an answer"),
    ):
        if len(ids):
            shown = ", ".join(map(str, np.sort(ids)[:LISTED])) + (", …" if len(ids) > LISTED else "")
            problems.append(f"{len(ids)} question{'s' if len(ids) > 1 else ''} {problem} ({shown})")
    if problems:
        raise InputError(f"{path}: a results file answers every question of {dataset.name} once: {'; '.join(problems)}")
    return row_R


def check_choices(path: Path, dataset: QADataset, predictions: Strings) -> None:
    """Raise InputError naming the first question whose answer is not literally one of its choices."""
    if dataset.choices is None:
        raise InputError(f"{dataset.name} has no choices, so {path} cannot be read as multiple-choice results")
    code_of = {text: code for code, text in enumerate(dataset.choices.distinct)}
    no_choice = ABSENT - 1
    code_S = np.asarray([code_of.get(text, no_choice) for text in predictions.distinct] or [no_choice], dtype=np.int32)
    chosen_N = code_S[predictions.codes]
    wrong = np.flatnonzero(~(dataset.choices.codes == chosen_N[:, None]).any(axis=1))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{path}: {len(wrong)} of {len(dataset)} answers are not among the question's choices; first, question "
            f"{dataset.question_id_N[row]}: {predictions.at(row)!r} is none of: {', '.join(dataset.choices.row(row))}"
        )
