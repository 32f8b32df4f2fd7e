"""Your own data as a table: CSV, TSV or JSON lines, one question a row.

Columns: `image` (path of the image, from the table's folder) and `question`; `answer` (one) or `answers` (1 to 10);
optional `choices`, `question_type`, `answer_type`, `split`, `id` (a whole number). Other columns are ignored, but may
be what `data.holdout.by` keeps together. In CSV and TSV several answers or choices stand in one cell, as a JSON list or
with "|" between them, and an empty cell is no value. JSON lines hold one object a line.

The root is a folder with one file a split (`train.csv`, `val.jsonl`, …), or a single file, or a folder with that one
file: with a column `split`, the rows of the split that is asked for; without one, its name is the split ("train" in
`train.csv`).
"""

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from vqa.data.dataset import ImageTable, QADataset, Strings, StringsBuilder
from vqa.data.formats.columns import all_or_none, answer_rows, check_answers, image_table, unique_ids
from vqa.data.formats.decode import Id, decode_line, fits_id, read_text
from vqa.data.formats.find import MissingSplitError
from vqa.errors import InputError, shortened

ABOUT = "your own data: CSV, TSV or JSON lines with image, question, answer(s) and optional choices and types"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
ENDINGS = (*DELIMITERS, ".jsonl")


class Row(msgspec.Struct, gc=False):
    """One question; a number for an answer is read as its digits."""

    image: str | None = None
    question: str | None = None
    answer: str | int | None = None
    answers: list[str | int] | None = None
    choices: list[str | int] | None = None
    question_type: str | None = None
    answer_type: str | None = None
    split: str | None = None
    id: Id | None = None


def read(root: Path, split: str) -> QADataset:
    """Read one split; question ids are the column `id`, or count the rows of the split from 0."""
    path = _find(root, split)
    numbered = [(line, row) for line, row in _rows(path)]
    lines, rows = _of_split(path, numbered, split)
    answers, majority = answer_rows(
        [_answers(row, f"{path}: line {n}") for n, row in zip(lines, rows, strict=True)], path
    )
    images, image_row_N = _images(path, lines, rows)
    return QADataset(
        format="table",
        split=split,
        question_id_N=_ids(path, rows),
        image_row_N=image_row_N,
        images=images,
        question=Strings.of(
            [_need(row.question, path, line, "question") for line, row in zip(lines, rows, strict=True)]
        ),
        answers=answers,
        majority=majority,
        choices=_choices(path, lines, rows),
        question_type=all_or_none([row.question_type for row in rows], path, "question_type"),
        answer_type=all_or_none([row.answer_type for row in rows], path, "answer_type"),
        data_type="table",
        files=(path,),
    )


def read_column(root: Path, split: str, name: str) -> list[str]:
    """A column that `read` ignores, such as a scene's or a program's name: one text a question of the split.

    Raises:
        InputError: there is no such column, or a row has nothing in it.
    """
    path = _find(root, split)
    cells = list(_column(path, name))
    read_rows = list(_rows(path))
    lines, _ = _of_split(path, read_rows, split)
    wanted = set(lines)
    found = [cell for (line, _), cell in zip(read_rows, cells, strict=True) if line in wanted]
    if not any(found):
        raise InputError(f"{path}: has no column {name!r}")
    lacking = next((line for line, cell in zip(lines, found, strict=True) if not cell), None)
    if lacking is not None:
        raise InputError(f"{path}: line {lacking}: no {name}")
    return [cell or "" for cell in found]


def _column(path: Path, name: str) -> Iterator[str]:
    """One cell of every row that is not blank; "" where it has nothing there."""
    text = read_text(path)
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                value = decode_line(line, dict[str, Any], path, number).get(name)
                yield "" if value is None else value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        return
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=DELIMITERS[path.suffix], strict=True)
    filled = (cells for cells in rows if any(cell.strip() for cell in cells))
    header = _header(path, next(filled, []))
    place = header.index(name.lower()) if name.lower() in header else None
    for cells in filled:
        yield "" if place is None else cells[place].strip()


def _find(root: Path, split: str) -> Path:
    if root.is_file():
        if root.suffix not in ENDINGS:
            raise InputError(f"{root}: a table ends in {', '.join(ENDINGS)}")
        return root
    if not root.is_dir():
        raise InputError(f"{root}: no such file or folder")
    if "/" in split or os.sep in split or "\0" in split or len(split) > 100:
        raise InputError(f"table split {split!r}: a split is named by a word, not a path")
    found = [path for ending in ENDINGS if (path := root / f"{split}{ending}").is_file()]
    if len(found) > 1:
        raise InputError(f"table {split}: both {found[0]} and {found[1]} are there; keep one")
    if not found:
        tables = _tables(root)
        if len(tables) == 1 and _named_splits(tables[0]):
            return tables[0]
        there = f"; there are the splits {', '.join(splits(root))}" if tables else ""
        raise MissingSplitError(
            f"table {split}: found no {' or '.join(str(root / (split + ending)) for ending in ENDINGS)}{there}"
        )
    return found[0]


def _tables(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.suffix in ENDINGS and path.is_file())


def _named_splits(path: Path) -> list[str]:
    """What the column `split` of a table says; [] without one, and for a table that cannot be read."""
    try:
        return sorted({row.split for _, row in _rows(path) if row.split is not None})
    except InputError:
        return []  # reading the split says what is wrong


def splits(root: Path) -> list[str]:
    """The splits that a table, or the tables in a folder, hold."""
    names = [
        name for path in ([root] if root.is_file() else _tables(root)) for name in _named_splits(path) or [path.stem]
    ]
    return list(dict.fromkeys(names))


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Line number and row of every row that is not blank."""
    text = read_text(path)
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, decode_line(line, Row, path, number)
    else:
        yield from _csv_rows(path, text)


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=DELIMITERS[path.suffix], strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue  # blank, or the row of commas that spreadsheets leave
            if not header:
                header = _header(path, cells)
            elif len(cells) != len(header):
                raise InputError(f"{path}: line {reader.line_num}: {len(cells)} cells under a header of {len(header)}")
            else:
                yield reader.line_num, _csv_row(path, reader.line_num, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}") from None


def _header(path: Path, cells: list[str]) -> list[str]:
    header = [cell.strip().lower() for cell in cells]
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise InputError(f"{path}: the header has two columns {shortened(min(twice))!r}")
    lacking = {"image", "question"} - set(header)
    if lacking:
        raise InputError(
            f"{path}: the header has no column {' and no column '.join(sorted(lacking))}; it has: "
            f"{shortened(', '.join(header))}"
        )
    return header


def _csv_row(path: Path, line: int, cells: dict[str, str]) -> Row:
    values = {name: text for name in Row.__struct_fields__ if (text := cells.get(name, "").strip())}
    lists: dict[str, list[str | int]] = {}
    for name in ("answers", "choices"):
        if name in values:
            lists[name] = _list(path, line, values.pop(name))
    number = values.pop("id", None)
    if number is not None and not fits_id(number):
        raise InputError(f"{path}: line {line}: id {number!r} is not a whole number from 0 to {2**63 - 1}")
    return Row(**values, **lists, id=None if number is None else int(number))  # type: ignore[arg-type]


def _list(path: Path, line: int, cell: str) -> list[str | int]:
    if cell.startswith("["):
        return decode_line(cell, list[str | int], path, line)
    return [item.strip() for item in cell.split("|")]


def _of_split(path: Path, numbered: list[tuple[int, Row]], split: str) -> tuple[list[int], list[Row]]:
    named = sorted({row.split for _, row in numbered if row.split is not None})
    if not numbered:
        raise InputError(f"{path}: holds no questions")
    if not named and path.stem != split:
        raise InputError(f"{path}: has no column split, so it holds the split {path.stem!r}, not {split!r}")
    if named:
        all_or_none([row.split for _, row in numbered], path, "split")
        numbered = [(line, row) for line, row in numbered if row.split == split]
    if not numbered:
        raise InputError(f"{path}: no row is of split {split!r}; there are: {', '.join(named)}")
    return [line for line, _ in numbered], [row for _, row in numbered]


def _need(value: str | None, path: Path, line: int, name: str) -> str:
    if not value or value.isspace():
        raise InputError(f"{path}: line {line}: no {name}")
    return value


def _answers(row: Row, where: str) -> list[str] | None:
    if row.answer is not None and row.answers is not None:
        raise InputError(f"{where}: both answer and answers are given; keep one")
    if row.answers is not None:
        check_answers(row.answers, where)
    elif row.answer is None or not str(row.answer).strip():
        return None  # an empty cell is no value
    given = [str(answer) for answer in ([row.answer] if row.answers is None else row.answers)]
    if not all(answer.strip() for answer in given):
        raise InputError(f"{where}: an answer is empty")
    return given


def _choices(path: Path, lines: list[int], rows: list[Row]) -> Strings | None:
    if all(row.choices is None for row in rows):
        return None
    builder = StringsBuilder()
    for line, row in zip(lines, rows, strict=True):
        if not row.choices:
            raise InputError(f"{path}: line {line}: no choices, though other rows have them")
        builder.add([str(choice) for choice in row.choices])
    return builder.build()


def _ids(path: Path, rows: list[Row]) -> np.ndarray:
    given = [row.id for row in rows if row.id is not None]
    if not given:
        return np.arange(len(rows), dtype=np.int64)
    if len(given) < len(rows):
        raise InputError(f"{path}: only {len(given)} of {len(rows)} rows have an id")
    return unique_ids(given, path, "question")


def _images(path: Path, lines: list[int], rows: list[Row]) -> tuple[ImageTable, np.ndarray]:
    """Images by their path from the table's folder, which is their id too: the same file is the same image."""
    keys = []
    for line, row in zip(lines, rows, strict=True):
        image = _need(row.image, path, line, "image")
        if "\0" in image:
            raise InputError(f"{path}: line {line}: image {image!r} is not a path")
        keys.append(os.path.normpath(image))
    ids, image_row_N = image_table(keys)
    return ImageTable(ids, tuple(path.parent / key for key in ids)), image_row_N
