"""GQA (Hudson and Manning 2019): JSON objects from question id to question, the balanced questions or all of them."""

import re
from array import array
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from vqa.data.dataset import ImageTable, QADataset, Strings, StringsBuilder
from vqa.data.formats.columns import check_image_name, single_answers, unique_ids
from vqa.data.formats.decode import decode_file, decode_records, fits_id
from vqa.data.formats.find import MissingSplitError, find_file, image_folder, not_found
from vqa.data.formats.ids import names_of
from vqa.errors import InputError

SPLITS = {"train": "train", "val": "val", "test": "test", "test-dev": "testdev", "challenge": "challenge"}
SUBMISSION = {"submission": "submission"}  # a split of its own: its questions are those of the other splits again
HIDDEN = ("test", "challenge", "submission")
ABOUT = "GQA, balanced questions about Visual Genome photographs; one answer each"
ABOUT_ALL = "GQA, all questions, as `train_all_questions` and its like"
ABOUT_SUBMISSION = "GQA, the questions that its server wants answered"


class Types(msgspec.Struct, gc=False):
    structural: str | None = None


class GqaRecord(msgspec.Struct, gc=False, rename={"image_id": "imageId"}):
    image_id: str
    question: str
    answer: str | None = None
    types: Types | None = None


def read(root: Path, split: str) -> QADataset:
    """Read `<split>_balanced_questions.json`; the structural type is `question_type`.

    Question ids are published as digits with leading zeros and become integers; `question_names` has them
    as they are. Test and challenge have no answers.
    """
    return _read(root, split, "gqa", _files(root, split, "balanced", "gqa"))


def read_file(path: Path, split: str) -> QADataset:
    """Read a questions file lying anywhere, under any name."""
    return _read(path.parent, split, "gqa", [path])


def read_all(root: Path, split: str) -> QADataset:
    """Read `<split>_all_questions.json`, or the numbered parts `train_all_questions/train_all_questions_0.json`, …"""
    return _read(root, split, "gqa_all", _files(root, split, "all", "gqa_all"))


def read_submission(root: Path, split: str) -> QADataset:
    """Read `submission_all_questions.json`, which has no answers."""
    return _read(root, split, "gqa_submission", _files(root, split, "all", "gqa_submission"))


def _files(root: Path, split: str, kind: str, format: str) -> list[Path]:
    """The files of a split, in order.

    Raises:
        MissingSplitError: none is there; names the format that reads what is there instead.
        InputError: a part is missing between others.
    """
    stem = f"{split}_{kind}_questions"
    first = find_file(root, f"{stem}.json", f"{stem}_0.json")
    if first is None:
        message = not_found(root, f"{format} {split}", f"{stem}.json", *([f"{stem}_0.json"] if kind == "all" else []))
        other, reader = ("all", "gqa_all") if kind == "balanced" else ("balanced", "gqa")
        there = find_file(root, f"{split}_{other}_questions.json", f"{split}_{other}_questions_0.json")
        raise MissingSplitError(message if there is None else f"{message}; {there} is read by --format {reader}")
    if first.stem == stem:
        return [first]
    parts = {
        int(found[1]): path
        for path in first.parent.iterdir()
        if (found := re.fullmatch(rf"{stem}_(\d+)\.json", path.name))
    }
    missing = sorted(set(range(max(parts) + 1)) - set(parts))
    if missing:
        raise InputError(f"{first.parent / f'{stem}_{missing[0]}.json'}: no such file, though later parts are there")
    return [parts[number] for number in sorted(parts)]


class _Columns:
    """The columns of one or more files, filled record by record: all questions are 22 million."""

    def __init__(self) -> None:
        self.ids = array("q")
        self.names, self.images, self.question, self.answer, self.kind = (StringsBuilder() for _ in range(5))

    def add_file(self, path: Path) -> None:
        """Append a file's questions; raises InputError naming it and the question."""
        pieces = decode_file(path, dict[str, msgspec.Raw])
        wrong = next((key for key in pieces if not fits_id(key)), None)
        if wrong is not None:
            raise InputError(f"{path}: question id {wrong!r} is not a number")
        where = f"{path}: question"
        for key, record in zip(pieces, decode_records(list(pieces.values()), GqaRecord, where), strict=True):
            check_image_name(record.image_id, f"{where} {key}")
            self.ids.append(int(key))
            self.names.add((key,))
            self.images.add((record.image_id,))
            self.question.add((record.question,))
            if record.answer is not None:
                self.answer.add((record.answer,))
            if record.types is not None and record.types.structural is not None:
                self.kind.add((record.types.structural,))

    def all_or_none(self, column: StringsBuilder, path: Path, name: str) -> Strings | None:
        """A column that every question has, or None where none has it; raises InputError when only some do."""
        if len(column) not in (0, len(self.ids)):
            lacking = len(self.ids) - len(column)
            raise InputError(f"{path}: {lacking:,} of {len(self.ids):,} questions have no {name}")
        return column.build_column() if len(column) else None


def _read(root: Path, split: str, format: str, paths: Sequence[Path]) -> QADataset:
    columns = _Columns()
    for path in paths:
        columns.add_file(path)
    question_id_N = unique_ids(columns.ids, paths[0], "question")
    majority = columns.all_or_none(columns.answer, paths[0], "answer")
    if majority is None and split not in HIDDEN:
        raise InputError(f"{paths[0]}: no question has an answer")
    image = columns.images.build_column()
    names = [f"{number}.jpg" for number in image.distinct]
    folder = image_folder(root, ("images",), names)
    return QADataset(
        format=format,
        split=split,
        question_id_N=question_id_N,
        image_row_N=image.codes.astype(np.int32),
        images=ImageTable(image.distinct, tuple(folder / name for name in names)),
        question=columns.question.build_column(),
        answers=None if majority is None else single_answers(majority),
        majority=majority,
        question_type=columns.all_or_none(columns.kind, paths[0], "type"),
        data_type="gqa",
        files=tuple(paths),
        question_names=names_of(columns.names.build_column().distinct),
    )
