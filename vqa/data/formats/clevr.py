"""CLEVR v1.0 (Johnson et al. 2017): rendered scenes of simple solids; one answer each, none in test."""

from pathlib import Path

import msgspec

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.data.formats.columns import all_or_none, check_image_name, image_table, single_answers, unique_ids
from vqa.data.formats.decode import Id, decode_file, decode_records
from vqa.data.formats.find import image_folder, need_file
from vqa.errors import InputError

SPLITS = {"train": "train", "val": "val", "test": "test"}
ABOUT = "CLEVR v1.0: counting, comparing and finding in rendered scenes"


class ClevrFile(msgspec.Struct, gc=False):
    questions: list[msgspec.Raw]


class Step(msgspec.Struct, gc=False):
    function: str


class ClevrRecord(msgspec.Struct, gc=False):
    question_index: Id
    image_filename: str
    question: str
    answer: str | None = None
    program: list[Step] | None = None


def read(root: Path, split: str) -> QADataset:
    """Read `CLEVR_<split>_questions.json`; the last function of a question's program is its `question_type`."""
    path = need_file(root, f"clevr {split}", f"CLEVR_{split}_questions.json")
    file: ClevrFile = decode_file(path, ClevrFile)
    questions, keys, numbers = [], [], []
    answers: list[str | None] = []
    kinds: list[str | None] = []
    for record in decode_records(file.questions, ClevrRecord, f"{path}: question"):
        check_image_name(record.image_filename, f"{path}: question {record.question_index}")
        numbers.append(record.question_index)
        questions.append(record.question)
        keys.append(record.image_filename)
        answers.append(record.answer)
        kinds.append(record.program[-1].function if record.program else None)
    question_id_N = unique_ids(numbers, path, "question")
    majority = all_or_none(answers, path, "answer")
    if majority is None and split != "test":
        raise InputError(f"{path}: no question has an answer")
    names, image_row_N = image_table(keys)
    folder = image_folder(root, (split,), names)
    return QADataset(
        format="clevr",
        split=split,
        question_id_N=question_id_N,
        image_row_N=image_row_N,
        images=ImageTable(names, tuple(folder / name for name in names)),
        question=Strings.of(questions),
        answers=None if majority is None else single_answers(majority),
        majority=majority,
        question_type=all_or_none(kinds, path, "program"),
        data_type="clevr",
        files=(path,),
    )
