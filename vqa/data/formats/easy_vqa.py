"""easy-VQA (https://github.com/vzhou842/easy-VQA): coloured shapes of 64x64 pixels, 13 answers."""

from pathlib import Path

import numpy as np

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.data.formats.columns import single_answers
from vqa.data.formats.decode import Id, decode_file
from vqa.data.formats.find import check_root, need_file
from vqa.errors import InputError

SPLITS = {"train": "train", "test": "test"}  # no validation split is published: hold out images of train
ABOUT = "easy-VQA, 5,000 synthetic images of one shape"


def read(root: Path, split: str) -> QADataset:
    """Read `<split>/questions.json`, rows of [question, answer, image id]; question ids count the rows from 0."""
    check_root(root)
    path = need_file(root / split if (root / split).is_dir() else root, f"easy_vqa {split}", "questions.json")
    rows = decode_file(path, list[tuple[str, str, Id]])
    if not rows:
        raise InputError(f"{path}: holds no questions")
    number_N = np.array([number for _, _, number in rows], dtype=np.int64)
    numbers, image_row = np.unique(number_N, return_inverse=True)
    answer = Strings.of([answer for _, answer, _ in rows])
    images = path.parent / "images"
    return QADataset(
        format="easy_vqa",
        split=split,
        question_id_N=np.arange(len(rows), dtype=np.int64),
        image_row_N=image_row.astype(np.int32),
        images=ImageTable(
            tuple(f"{split}/{number}" for number in numbers.tolist()),
            tuple(images / f"{number}.png" for number in numbers.tolist()),
        ),
        question=Strings.of([question for question, _, _ in rows]),
        answers=single_answers(answer),
        majority=answer,
        data_type="easy_vqa",
        files=(path,),
    )
