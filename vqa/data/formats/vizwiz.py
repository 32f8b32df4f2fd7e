"""VizWiz-VQA (Gurari et al. 2018): photographs and spoken questions of blind people, ten answers each."""

from pathlib import Path

import msgspec
import numpy as np

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.data.formats.columns import all_or_none, answer_rows, check_answers, check_image_name, image_table
from vqa.data.formats.decode import decode_file, decode_records
from vqa.data.formats.find import image_folder, need_file
from vqa.errors import InputError

SPLITS = {"train": "train", "val": "val", "test": "test"}
ABOUT = "VizWiz-VQA: photographs and questions of blind people; the test split has no answers"


class Answer(msgspec.Struct, gc=False):
    answer: str


class VizwizRecord(msgspec.Struct, gc=False):
    image: str
    question: str
    answers: list[Answer] | None = None
    answer_type: str | None = None


def read(root: Path, split: str) -> QADataset:
    """Read `<split>.json` ("Annotations/val.json"); question ids count the rows from 0.

    The majority answer is not published: it is the most frequent of the ten, of equals the first.
    """
    path = need_file(root, f"vizwiz {split}", f"{split}.json")
    pieces = decode_file(path, list[msgspec.Raw])
    records = list(decode_records(pieces, VizwizRecord, f"{path}: question"))
    if not records:
        raise InputError(f"{path}: holds no questions")
    rows: list[list[str] | None] = []
    for place, record in enumerate(records):
        where = f"{path}: question {place} (counted from 0)"
        check_image_name(record.image, where)
        rows.append(None if record.answers is None else [answer.answer for answer in record.answers])
        if rows[-1] is not None:
            check_answers(rows[-1], where)
    answers, majority = answer_rows(rows, path)
    if answers is None and split != "test":
        raise InputError(f"{path}: no question has answers")
    names, image_row_N = image_table([record.image for record in records])
    folder = image_folder(root, (split,), names)
    return QADataset(
        format="vizwiz",
        split=split,
        question_id_N=np.arange(len(records), dtype=np.int64),
        image_row_N=image_row_N,
        images=ImageTable(names, tuple(folder / name for name in names)),
        question=Strings.of([record.question for record in records]),
        answers=answers,
        majority=majority,
        answer_type=all_or_none([record.answer_type for record in records], path, "answer_type"),
        data_type="vizwiz",
        files=(path,),
    )
