"""From the rows of a table to a `QADataset`."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqa.data.dataset import ImageTable, QADataset, Strings, StringsBuilder
from vqa.data.formats.columns import all_or_none, answer_rows, check_answers, image_table, unique_ids
from vqa.data.formats.decode import fits_id
from vqa.data.formats.find import MissingSplitError, image_folder
from vqa.data.formats.table.cells import Cell, answer_in, list_in, plain, text_in
from vqa.data.formats.table.files import ALWAYS, ENDINGS, RawTable, Row, is_table_file, open_table, tables_in
from vqa.data.formats.table.names import PLAIN, Columns, TableOptions, canonical, recognise
from vqa.data.formats.table.unpack import FOLDER, Unpacked
from vqa.errors import InputError, first_of, quoted, shortened

IMAGE_FOLDERS = ("images", "imgs", "image", "img")
MOST_LISTED = 12  # languages, or values of a column, that a sentence names
_LETTER = re.compile(r"[A-Ra-r]")


@dataclass(frozen=True, slots=True)
class Question:
    """One row.

    Attributes:
        at: how a message about it begins.
        answer: the one answer, a letter or number of a choice, too.
        answers: several.
        choices: in the order of their columns, None where one of these has nothing in it.
        index: of the right choice, from 0.
    """

    at: str
    image: str
    question: str
    answer: str | None = None
    answers: list[str] | None = None
    choices: list[str | None] | None = None
    index: int | None = None
    question_type: str | None = None
    answer_type: str | None = None
    id: str | None = None


def read(root: Path, split: str, options: TableOptions = PLAIN) -> QADataset:
    """Read one split; question ids are the column of ids, or count the rows of the split from 0.

    Ids that are texts are kept in `question_names`, and the rows are counted. Images in the table are written into a
    folder beside it, each once.

    Raises:
        InputError: naming the file, line or row, and what is wrong.
    """
    path, beside = _find(root, split, options)
    table, columns = _open(path, options)
    chosen = _of_split(table, columns, split)
    unpacked = Unpacked(path)
    questions = [_question(table, columns, number, row, unpacked) for number, row in chosen]
    lettered, guesses = _with_choices(questions, columns)
    answers, majority = answer_rows(
        [_answers(one, right) for one, right in zip(questions, lettered, strict=True)], path
    )
    question_id_N, names = _ids(path, questions)
    images, image_row_N, found = _images(path, [one.image for one in questions])
    notes = [*table.notes, *columns.notes(), *guesses, *unpacked.notes(), *found, *_languages(columns, chosen), *beside]
    return QADataset(
        format="table",
        split=split,
        question_id_N=question_id_N,
        image_row_N=image_row_N,
        images=images,
        question=Strings.of([one.question for one in questions]),
        answers=answers,
        majority=majority,
        choices=_choices(questions),
        question_type=all_or_none([one.question_type for one in questions], path, "question_type"),
        answer_type=all_or_none([one.answer_type for one in questions], path, "answer_type"),
        data_type="table",
        files=(path,),
        question_names=names,
        notes=tuple(notes),
    )


def read_column(root: Path, split: str, name: str, options: TableOptions = PLAIN) -> list[str]:
    """A column that `read` ignores, such as a scene's or a program's name: one text a question of the split.

    Raises:
        InputError: there is no such column, or a row has nothing in it.
    """
    path, _ = _find(root, split, options)
    table, columns = _open(path, options)
    known = columns.of.get(name) or [one for one in table.names if canonical(one) == canonical(name)]
    if not known:
        raise InputError(f"{path}: has no column {name!r}")
    found = []
    for number, row in _of_split(table, columns, split, known[0]):
        cell = plain(row.get(known[0]))
        if not cell:
            raise InputError(f"{table.at(number)}: no {name}")
        found.append(cell)
    return found


def splits(root: Path, options: TableOptions = PLAIN) -> list[str]:
    """The splits that a table, or the tables in a folder, hold."""
    tables = [root] if root.is_file() else tables_in(root, options.given)
    return list(dict.fromkeys(name for path in tables for name in _named_splits(path, options) or [path.stem]))


def _open(path: Path, options: TableOptions) -> tuple[RawTable, Columns]:
    table = open_table(path, options.given)
    if not table.names:
        raise InputError(f"{path}: holds no questions")
    return table, recognise(table.names, options, path)


def _find(root: Path, split: str, options: TableOptions) -> tuple[Path, list[str]]:
    """The file that holds a split, and what is to be said of others that are called so."""
    if root.is_file():
        return root, []
    if not root.is_dir():
        raise InputError(f"{root}: no such file or folder")
    if "/" in split or os.sep in split or "\0" in split or len(split) > 100:
        raise InputError(f"table split {split!r}: a split is named by a word, not a path")
    called = sorted(path for path in root.iterdir() if is_table_file(path) and path.stem == split and path.is_file())
    usual = [path for path in called if path.suffix.lower() in ALWAYS]
    found = usual or called
    if len(found) > 1:
        raise InputError(f"table {split}: both {found[0]} and {found[1]} are there; keep one")
    if found:
        others = [path.name for path in called if path not in found]
        return found[0], [f"{' and '.join(others)} beside it is not read"] if others else []
    tables = tables_in(root, options.given)
    if len(tables) == 1 and _named_splits(tables[0], options):
        return tables[0], []
    there = f"; there are the splits {', '.join(splits(root, options))}" if tables else ""
    raise MissingSplitError(
        f"table {split}: found no {' or '.join(str(root / (split + ending)) for ending in ENDINGS)}{there}"
    )


def _named_splits(path: Path, options: TableOptions) -> list[str]:
    """What the column `split` of a table says; [] without one, and for a table that cannot be read."""
    try:
        table, columns = _open(path, options)
        if "split" not in columns.of:
            return []
        rows = table.rows(columns.of["split"])
        return sorted({name for _, row in rows if (name := plain(columns.get(row, "split")))})
    except (InputError, ValueError):
        return []  # reading the split says what is wrong


def _of_split(table: RawTable, columns: Columns, split: str, *others: str) -> list[tuple[int, Row]]:
    """The numbers and cells of the rows that `where` leaves of a split, which are those of the file without a column.

    Args:
        others: columns to read besides.
    """
    chosen, named, total, unnamed = list[tuple[int, Row]](), Counter[str](), 0, 0
    left: dict[str, Counter[str]] = {name: Counter() for name in columns.where}
    for number, row in table.rows(columns.used.union(others)):
        total += 1
        if not _is_wanted(row, columns, left):
            continue
        name = plain(columns.get(row, "split"))
        named[name] += bool(name)
        unnamed += not name
        if name in ("", split):
            chosen.append((number, row))
    path, known = table.path, sorted(name for name in named if name)
    if not total:
        raise InputError(f"{path}: holds no questions")
    if not known and not unnamed:
        raise InputError(_nothing_where(path, columns, left))
    if not known and path.stem != split:
        raise InputError(f"{path}: has no column split, so it holds the split {path.stem!r}, not {split!r}")
    if known and unnamed:
        raise InputError(f"{path}: {unnamed:,} of {unnamed + named.total():,} rows have no split")
    if not chosen:
        raise InputError(f"{path}: no row is of split {split!r}; there are: {', '.join(known)}")
    return chosen


def _is_wanted(row: Row, columns: Columns, left: dict[str, Counter[str]]) -> bool:
    """Whether `where` leaves a row; counts what the columns have in `left`."""
    wanted = True
    for name, texts in columns.where.items():
        text = plain(row.get(name))
        left[name][text] += 1
        wanted = wanted and text in texts
    return wanted


def _nothing_where(path: Path, columns: Columns, left: dict[str, Counter[str]]) -> str:
    """Why no row is left: what the columns of `where` have in them."""
    said = [
        f"where: no row has {name} = {' or '.join(sorted(columns.where[name]))}; it has: "
        f"{shortened(', '.join(text for text, _ in found.most_common(MOST_LISTED)))}"
        for name, found in left.items()
        if columns.where[name].isdisjoint(found)
    ]
    return first_of(f"{path}: {one}" for one in said or ["where: no row fits all of it"])


def _question(table: RawTable, columns: Columns, number: int, row: Row, unpacked: Unpacked) -> Question:
    at = table.at(number)

    def cell(role: str, read: Any = text_in) -> Any:
        if role not in columns.of:
            return None
        try:
            return read(columns.get(row, role))
        except ValueError as error:
            names = ", ".join(columns.of[role])
            raise InputError(f"{at}: column {names} {error}") from None

    answer, answers = cell("answer", answer_in), cell("answers", _answers_in(columns))
    if isinstance(answer, list):
        answer, answers = None, answer if answers is None else answers
    if answer is not None and answers is not None:
        if answer not in answers:
            raise InputError(f"{at}: both answer and answers are given; keep one")
        answer = None
    return Question(
        at=at,
        image=_need(cell("image", unpacked.name_of), at, "image"),
        question=_need(cell("question"), at, "question"),
        answer=answer,
        answers=answers,
        choices=cell("choices", _choices_in(columns)),
        index=_index(at, cell("answer_index"), 0)
        if "answer_index" in columns.of
        else _index(at, cell("answer_number"), 1),
        question_type=cell("question_type"),
        answer_type=cell("answer_type"),
        id=cell("id"),
    )


def _answers_in(columns: Columns) -> Any:
    """What reads answers: one cell, or several columns with one each, of which some may have nothing in them."""
    if len(columns.of.get("answers", ())) < 2:
        return list_in
    return lambda cells: [text for cell in cells if (text := text_in(cell))] or None


def _choices_in(columns: Columns) -> Any:
    """What reads choices: one cell, or several columns with one each, of which some may have nothing in them."""
    if len(columns.of.get("choices", ())) < 2:
        return list_in

    def of_columns(cells: list[Cell]) -> list[str | None] | None:
        found = [text_in(cell) for cell in cells]
        return found if any(found) else None

    return of_columns


def _index(at: str, text: str | None, first: int) -> int | None:
    """The place of a choice, counted from 0 here and from `first` in the table."""
    if text is None:
        return None
    whole = text.removesuffix(".0")  # as pandas writes a column with gaps
    if not fits_id(whole) or int(whole) < first:
        raise InputError(f"{at}: the right choice is {quoted(text)}, not a number that counts from {first}")
    return int(whole) - first


def _need(value: str | None, at: str, name: str) -> str:
    if not value:
        raise InputError(f"{at}: no {name}")
    if name == "image" and "\0" in value:
        raise InputError(f"{at}: image {value!r} is not a path")
    return value


def _with_choices(questions: Sequence[Question], columns: Columns) -> tuple[list[str | None], list[str]]:
    """The answer of each question where it is a choice by its letter or place, else None; and what is to be said.

    A letter is one where choices stand in columns of their own, and in a list of choices where all answers are letters
    and not all of them are choices themselves. A number is one only in a column that says so: nothing tells whether it
    counts from 0 or from 1.
    """
    answered = [one for one in questions if one.answer is not None and one.choices is not None]
    literal = [one.answer in (one.choices or ()) for one in answered]
    letters = bool(answered) and all(_LETTER.fullmatch(one.answer or "") for one in answered)
    by_letter = letters and (columns.lettered or not all(literal))
    right: list[str | None] = []
    for one in questions:
        place = one.index if one.answer is None and one.answers is None else None
        if by_letter and one.answer is not None and one.choices is not None:
            place = ord(one.answer.upper()) - ord("A")
        right.append(None if place is None else _choice_at(one, place))
    notes = ["answers are letters of the choices, and read as these"] if by_letter else []
    numbers = sum(fits_id(one.answer or "") for one, known in zip(answered, literal, strict=True) if not known)
    if numbers:
        notes.append(
            f"answers that are numbers and not among the choices: {numbers:,}; where they count the choices, say how: "
            "`columns: {answer_index: answer}` (from 0) or `columns: {answer_number: answer}` (from 1)"
        )
    return right, notes


def _choice_at(one: Question, place: int) -> str:
    choices = one.choices or []
    found = choices[place] if place < len(choices) else None
    if not found:
        raise InputError(
            f"{one.at}: the right choice is number {place + 1}, but there are {len(list(filter(None, choices)))}"
        )
    return found


def _answers(one: Question, right: str | None) -> list[str] | None:
    if right is not None:
        return [right]
    if one.answers is not None:
        check_answers(one.answers, one.at)
        if not all(one.answers):
            raise InputError(f"{one.at}: an answer is empty")
        return one.answers
    return None if one.answer is None else [one.answer]  # an empty cell is no value


def _choices(questions: Sequence[Question]) -> Strings | None:
    if all(one.choices is None for one in questions):
        return None
    builder = StringsBuilder()
    for one in questions:
        if not one.choices:
            raise InputError(f"{one.at}: no choices, though other rows have them")
        builder.add([choice for choice in one.choices if choice])
    return builder.build()


def _ids(path: Path, questions: Sequence[Question]) -> tuple[np.ndarray, Strings | None]:
    """The ids as numbers, and as they are where not all of them are whole numbers, written as everyone does."""
    given = [one.id for one in questions if one.id is not None]
    counted = np.arange(len(questions), dtype=np.int64)
    if not given:
        return counted, None
    if len(given) < len(questions):
        raise InputError(f"{path}: only {len(given)} of {len(questions)} rows have an id")
    whole = [name.removesuffix(".0") for name in given]
    if all(map(fits_id, whole)):
        names = Strings.of(whole) if any(name != str(int(name)) for name in whole) else None  # 007 is written so again
        return unique_ids([int(name) for name in whole], path, "question"), names
    twice = [(name, count) for name, count in Counter(given).items() if count > 1]
    if twice:
        name, count = twice[0]
        raise InputError(f"{path}: question_id {quoted(name)} appears {count} times ({len(twice)} such ids)")
    return counted, Strings.of(given)


def _images(path: Path, names: Sequence[str]) -> tuple[ImageTable, np.ndarray, list[str]]:
    """Images by their path from the table's folder, which is their id too: the same file is the same image.

    Where they are not there, a folder beside the table, or below its folder, that has them is taken, and named.
    """
    ids, image_row_N = image_table([os.path.normpath(name) for name in names])
    outside = [name for name in ids if not name.startswith(f"{FOLDER}/")]
    folder = path.parent if _has_some(path.parent, outside) else image_folder(path.parent, IMAGE_FOLDERS, outside)
    if folder == path.parent or not _has_some(folder, outside):
        return ImageTable(ids, tuple(path.parent / name for name in ids)), image_row_N, []
    unpacked = {name for name in ids if name.startswith(f"{FOLDER}/")}
    paths = tuple((path.parent if name in unpacked else folder) / name for name in ids)
    return ImageTable(ids, paths), image_row_N, [f"its images lie in {folder}"]


def _has_some(folder: Path, names: Sequence[str]) -> bool:
    """Whether one of the names that `image_folder` tries is there."""
    return any((folder / names[place]).is_file() for place in {0, len(names) // 2, len(names) - 1} if names)


def _languages(columns: Columns, rows: Sequence[tuple[int, Row]]) -> list[str]:
    """How many questions are in which language, where there are several."""
    name = columns.of.get("language", ("",))[0]
    if not name:
        return []
    found = Counter(plain(row.get(name)) for _, row in rows)
    if len(found) < 2:
        return []
    counts = ", ".join(f"{language or 'none'} {count:,}" for language, count in found.most_common(MOST_LISTED))
    first = found.most_common(1)[0][0]
    return [f"questions in {len(found)} languages ({counts}); `where: {{{name}: {first}}}` reads those of one"]
