"""RSVQA (Lobry et al. 2020): questions about satellite and aerial images, in a file of questions and one of answers.

Records that are not `active` belong to other splits, and hold nothing but their id.
"""

from functools import partial
from pathlib import Path

import msgspec

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.data.formats.columns import all_or_none, image_table, single_answers, unique_ids
from vqa.data.formats.decode import Id, decode_file, decode_records
from vqa.data.formats.find import find_file, image_folder, need_file, not_found
from vqa.errors import InputError

SPLITS_LR = {"train": "train", "val": "val", "test": "test"}
SPLITS_HR = {**SPLITS_LR, "test_phili": "test_phili"}
ABOUT_LR = "RSVQA, low resolution: questions about Sentinel-2 images of the Netherlands"
ABOUT_HR = "RSVQA, high resolution: questions about aerial images of the USA"


class QuestionFile(msgspec.Struct, gc=False):
    questions: list[msgspec.Raw]


class AnswerFile(msgspec.Struct, gc=False):
    answers: list[msgspec.Raw]


class QuestionRecord(msgspec.Struct, gc=False):
    id: Id
    active: bool = True
    img_id: Id | None = None
    type: str | None = None
    question: str | None = None


class AnswerRecord(msgspec.Struct, gc=False):
    active: bool = True
    question_id: Id | None = None
    answer: str | int | float | None = None


def _read(root: Path, split: str, *, format: str, stem: str, folders: tuple[str, ...]) -> QADataset:
    what, answered = f"{format} {split}", f"{stem}_{split}_answers.json"
    path = need_file(root, what, f"{stem}_{split}_questions.json")
    pieces: QuestionFile = decode_file(path, QuestionFile)
    records = [one for one in decode_records(pieces.questions, QuestionRecord, f"{path}: question") if one.active]
    for record in records:
        if record.question is None or record.img_id is None:
            raise InputError(f"{path}: question {record.id} has no {'img_id' if record.question else 'question'}")
    question_id_N = unique_ids([record.id for record in records], path, "active question")
    answers = find_file(root, answered)
    answer = None if answers is None else _answer_column(answers, [record.id for record in records])
    ids, image_row_N = image_table([str(record.img_id) for record in records])
    names = [f"{number}.tif" for number in ids]
    folder = image_folder(root, folders, names)
    return QADataset(
        format=format,
        split=split,
        question_id_N=question_id_N,
        image_row_N=image_row_N,
        images=ImageTable(ids, tuple(folder / name for name in names)),
        question=Strings.of([record.question for record in records]),
        answers=None if answer is None else single_answers(answer),
        majority=answer,
        question_type=all_or_none([record.type for record in records], path, "type"),
        data_type="rsvqa",
        files=(path,) if answers is None else (path, answers),
        answers_missing="" if answers is not None else not_found(root, what, answered, beside=path),
    )


read_lr = partial(_read, format="rsvqa_lr", stem="LR_split", folders=("Images_LR", "images"))
read_hr = partial(_read, format="rsvqa_hr", stem="USGS_split", folders=("Data", "images"))


def _answer_column(path: Path, questions: list[int]) -> Strings:
    """The answer of each question; raises InputError when one has none or two."""
    pieces: AnswerFile = decode_file(path, AnswerFile)
    answer_of: dict[int, str] = {}
    for place, record in enumerate(decode_records(pieces.answers, AnswerRecord, f"{path}: answer")):
        if not record.active:
            continue
        if record.question_id is None or record.answer is None or not str(record.answer).strip():
            raise InputError(f"{path}: answer {place} (counted from 0) has no question_id, or is empty")
        if answer_of.setdefault(record.question_id, str(record.answer)) != str(record.answer):
            raise InputError(f"{path}: question {record.question_id} has two answers")
    without = next((number for number in questions if number not in answer_of), None)
    if without is not None:
        raise InputError(f"{path}: question {without} has no answer")
    return Strings.of([answer_of[number] for number in questions])
