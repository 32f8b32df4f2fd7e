"""Sets published as a list of questions (JSON, CSV or a plain pickle): one reader, and what differs in a `Listing`.

A field that a set may leave out is None in all its questions; ids that are missing, or texts, are counted from 0.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ImageTable, PathList, QADataset, Strings, StringsBuilder
from vqa.data.formats.columns import all_or_none, answer_rows, check_answers, image_table
from vqa.data.formats.decode import decode_file, fits_id, read_text
from vqa.data.formats.find import find_file, image_folder, need_file
from vqa.data.formats.ids import names_of, numbered
from vqa.data.pickles import read_plain_pickle
from vqa.errors import InputError, quoted

Record = dict[str, Any]
LONGEST_PATH = 500  # letters of an image's name with its folders


class Listing(NamedTuple):
    """What is particular to one published set.

    Attributes:
        about: one line for listings.
        files: the files of each split: the first that is there is read, or all of them with `all_files`.
        image: the field that names the image.
        names: what its file is called, "{}" for the field's text, "{:012d}" for a number; of several, per image, the
            first that is there.
        folders: names of the folder of images; "{split}" in them is the split.
        question: the field of the question.
        answers: fields of the answers, one text or a list of them; the first that a question has.
        id: the field of its id.
        choices: the field of the choices.
        correct: the field that holds the place of the true choice, from 0; it becomes the majority answer.
        question_type: the field.
        answer_type: the field.
        where: a field and the beginning of the values that belong to the split; None reads all.
        all_files: read every file of the split; what its name says besides the split is the question type.
        hidden: splits that are published without answers.
    """

    about: str
    files: Mapping[str, tuple[str, ...]]
    image: str
    names: tuple[str, ...] = ("{}",)
    folders: tuple[str, ...] = ("images",)
    question: str = "question"
    answers: tuple[str, ...] = ("answers", "answer")
    id: str = "question_id"
    choices: str = ""
    correct: str = ""
    question_type: str = ""
    answer_type: str = ""
    where: Callable[[Record, str, str], bool] | None = None
    all_files: bool = False
    hidden: tuple[str, ...] = ("test",)

    @property
    def splits(self) -> dict[str, str]:
        """The splits by their names."""
        return {split: split for split in self.files}


def reader(format: str, listing: Listing) -> Callable[[Path, str], QADataset]:
    """The `read(root, split)` of a set."""
    return partial(_read, format=format, listing=listing)


def _read(root: Path, split: str, *, format: str, listing: Listing) -> QADataset:
    paths = _paths(root, split, format, listing)
    records: list[Record] = []
    for path in paths:
        kept = [one for one in _records(path, split) if not listing.where or listing.where(one, split, path.name)]
        kind = path.stem.replace(split, "").strip("_-")
        records += [{**one, "file": kind} for one in kept] if listing.all_files else kept
    path = paths[0]
    if not records:
        raise InputError(f"{path}: holds no questions of {split}")
    take = partial(_column, path, records)
    rows = [_answers(record, listing.answers, f"{path}: question {n} (from 0)") for n, record in enumerate(records)]
    answers, majority = answer_rows(rows, path)
    if answers is None and split not in listing.hidden:
        raise InputError(f"{path}: no question has {' or '.join(listing.answers)}")
    choices = _choices(path, records, listing.choices)
    if choices is not None and answers is not None and listing.correct:
        majority = _correct(path, records, choices, listing.correct)
    images, image_row_N = _images(root, split, take(listing.image, needed=True), listing, path)
    ids = _ids(path, records, listing.id)
    return QADataset(
        format=format,
        split=split,
        question_id_N=numbered(ids, path),
        image_row_N=image_row_N,
        images=images,
        question=Strings.of(take(listing.question, needed=True)),
        answers=answers,
        majority=majority,
        choices=choices,
        question_type=all_or_none(take("file" if listing.all_files else listing.question_type), path, "type"),
        answer_type=all_or_none(take(listing.answer_type), path, "answer type"),
        data_type=format,
        files=tuple(paths),
        question_names=names_of(ids),
    )


def _paths(root: Path, split: str, format: str, listing: Listing) -> list[Path]:
    names = listing.files[split]
    if not listing.all_files:
        return [need_file(root, f"{format} {split}", *names)]
    found = [path for name in names if (path := find_file(root, name)) is not None]
    return found or [need_file(root, f"{format} {split}", *names)]


def _records(path: Path, split: str) -> list[Record]:
    """The questions of a file, whatever list they stand in."""
    if path.suffix == ".csv":
        return list(_csv(path))
    value = read_plain_pickle(path) if path.suffix == ".pkl" else decode_file(path, Any)
    if isinstance(value, dict) and isinstance(value.get("annotations"), dict):
        value = _joined(path, value)
    if isinstance(value, dict):
        value = next((value[key] for key in ("data", "questions", split) if isinstance(value.get(key), list)), value)
    if not isinstance(value, list):
        raise InputError(f"{path}: holds no list of questions, nor an object with one under data, questions or {split}")
    wrong = next((place for place, one in enumerate(value) if not isinstance(one, dict)), None)
    if wrong is not None:
        raise InputError(f"{path}: question {wrong} (counted from 0) is no object: {quoted(value[wrong])}")
    return value


def _joined(path: Path, value: Record) -> list[Record]:
    """Questions by id, with the file of the image that each names by its id: `images` and `annotations`."""
    images, records = value.get("images"), []
    if not isinstance(images, dict):
        raise InputError(f"{path}: has annotations, but no images by their ids")
    for key, record in value["annotations"].items():
        if not isinstance(record, dict) or str(record.get("image_id")) not in images:
            raise InputError(f"{path}: question {quoted(key)} is about no image of the file")
        records.append({**record, "id": key, "image": images[str(record["image_id"])]})
    return records


def _csv(path: Path) -> Iterator[Record]:
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True, restkey="")
    try:
        for row in rows:
            if None in row.values() or isinstance(row.get(""), list):
                raise InputError(f"{path}: line {rows.line_num} has not the cells of the header")
            yield dict(row)
    except csv.Error as error:
        raise InputError(f"{path}: line {rows.line_num}: {error}") from None


def _column(path: Path, records: Sequence[Record], field: str, needed: bool = False) -> list[Any]:
    """A field of every question as text without blanks at its ends; None where it is not there or empty."""
    texts = []
    for place, record in enumerate(records):
        value = record.get(field) if field else None
        if isinstance(value, (dict, list, bool, bytes)):
            raise InputError(f"{path}: question {place} (counted from 0): {field} is no text: {quoted(value)}")
        text = None if value is None else str(value).strip() or None
        if needed and text is None:
            raise InputError(f"{path}: question {place} (counted from 0) has no {field}")
        texts.append(text)
    return texts


def _ids(path: Path, records: Sequence[Record], field: str) -> list[int | str | None]:
    ids = _column(path, records, field)
    return [
        record[field] if type(record.get(field)) is int else text for record, text in zip(records, ids, strict=True)
    ]


def _answers(record: Record, fields: Sequence[str], where: str) -> list[str] | None:
    """The answers of one question; None where there is none."""
    found = next((value for field in fields if (value := record.get(field)) is not None), None)
    values = found if isinstance(found, list) else [found]
    values = [one.get("answer") if isinstance(one, dict) else one for one in values]
    if any(isinstance(one, (dict, list, bytes)) for one in values):
        raise InputError(f"{where}: an answer is no text: {quoted(found)}")
    texts = ["yes" if one is True else "no" if one is False else str(one).strip() for one in values if one is not None]
    if not any(texts):
        return None
    check_answers(texts, where)
    if not all(texts):
        raise InputError(f"{where}: an answer is empty")
    return texts


def _choices(path: Path, records: Sequence[Record], field: str) -> Strings | None:
    """The choices `[N, C]`; None where the set has none."""
    if not field or not any(record.get(field) for record in records):
        return None
    builder = StringsBuilder()
    for place, record in enumerate(records):
        choices = record.get(field)
        if not isinstance(choices, list) or not choices or not all(isinstance(one, str) for one in choices):
            raise InputError(f"{path}: question {place} (counted from 0): {field} is no list of texts")
        builder.add(choices)
    return builder.build()


def _correct(path: Path, records: Sequence[Record], choices: Strings, field: str) -> Strings:
    texts = []
    for place, record in enumerate(records):
        given, index = choices.row(place), record.get(field)
        if type(index) is not int or not 0 <= index < len(given):
            raise InputError(
                f"{path}: question {place} (counted from 0): {field} {quoted(index)} is no place of a choice"
            )
        texts.append(given[index])
    return Strings.of(texts)


def _images(
    root: Path, split: str, keys: Sequence[str], listing: Listing, path: Path
) -> tuple[ImageTable, NDArray[np.int32]]:
    numbers = "d}" in listing.names[0]
    keys = [_image_key(key, path, place) for place, key in enumerate(keys)]
    ids, image_row_N = image_table([str(int(key)) if numbers and fits_id(key) else key for key in keys])
    folders = [name.format(split=split) for name in listing.folders]
    named = [[_file_name(form, key, path) for key in ids] for form in listing.names]
    where = [image_folder(root, folders, names) for names in named]
    files = [[folder / name for name in names] for folder, names in zip(where, named, strict=True)]
    chosen = files[0]
    if len(files) > 1:
        chosen = [next((one for one in some if one.is_file()), some[0]) for some in zip(*files, strict=True)]
    return ImageTable(ids, PathList([str(one) for one in chosen])), image_row_N


def _image_key(name: str, path: Path, place: int) -> str:
    """The name of an image as its id; raises InputError for one that leads out of the folder."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in name or "\\" in name or len(name) > LONGEST_PATH:
        raise InputError(f"{path}: question {place} (counted from 0): {quoted(name)} is not an image's name")
    return str(PurePosixPath(*parts))


def _file_name(form: str, key: str, path: Path) -> str:
    if "d}" not in form:
        return form.format(key)
    if not fits_id(key):
        raise InputError(f"{path}: image {quoted(key)} is no number, as those of COCO are")
    return form.format(int(key))
