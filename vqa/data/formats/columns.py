"""What several readers do with columns: ids that must be unique, types that all rows have or none, the majority.

Legend: `N` questions.
"""

from collections import Counter
from collections.abc import Sequence, Sized
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import Strings, StringsBuilder
from vqa.errors import InputError

MOST_ANSWERS = 10  # human answers a question, as the metric knows it


def unique_ids(ids: Sequence[int], path: Path, item: str) -> NDArray[np.int64]:
    """The ids of a file's questions as a column; raises InputError when there are none or one comes twice."""
    question_id_N = np.array(ids, dtype=np.int64)
    if not len(question_id_N):
        raise InputError(f"{path}: holds no {item}s")
    distinct, count = np.unique(question_id_N, return_counts=True)
    if len(distinct) < len(question_id_N):
        twice = distinct[count > 1]
        raise InputError(f"{path}: question_id {twice[0]} appears {count[count > 1][0]} times ({len(twice)} such ids)")
    return question_id_N


def all_or_none(values: Sequence[str | None], path: Path, name: str) -> Strings | None:
    """A column that every row has, or None where no row has it; raises InputError when only some rows do."""
    absent = sum(value is None for value in values)
    if absent == len(values):
        return None
    if absent:
        first = next(row for row, value in enumerate(values) if value is None)
        raise InputError(
            f"{path}: {absent} of {len(values)} rows have no {name} (the first: row {first}, counted from 0)"
        )
    return Strings.of(values)


def most_frequent(answers: Sequence[str]) -> str:
    """The answer that most people gave; of equals the one given first."""
    return Counter(answers).most_common(1)[0][0]


def check_answers(answers: Sized, where: str) -> None:
    """Raises InputError unless there are 1 to 10 answers; `where` begins the message."""
    if not 1 <= len(answers) <= MOST_ANSWERS:
        raise InputError(f"{where} has {len(answers)} answers, not 1 to {MOST_ANSWERS}")


def single_answers(answer: Strings) -> Strings:
    """A column of one answer a question as `[N, 1]`."""
    return Strings(answer.distinct, answer.codes[:, None])


def answer_rows(rows: Sequence[Sequence[str] | None], path: Path) -> tuple[Strings | None, Strings | None]:
    """Answers `[N, A]` and majority `[N]` from a list a row; both None where no row has answers."""
    given = [row for row in rows if row is not None]
    if not given:
        return None, None
    majority = all_or_none([None if row is None else most_frequent(row) for row in rows], path, "answer")
    builder = StringsBuilder()
    for row in given:
        builder.add(row)
    return builder.build(), majority


def image_table(keys: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """The distinct image keys in order of first use, and the row of each question's image `[N]`."""
    column = Strings.of(keys)
    return column.distinct, column.codes


def check_image_name(name: str, where: str) -> None:
    """Raises InputError unless `name` is a plain file name; `where` begins the message."""
    if not name or name in (".", "..") or any(sign in name for sign in ("/", "\\", "\0")) or len(name.encode()) > 200:
        raise InputError(f"{where}: {name[:100]!r} is not an image's name")
