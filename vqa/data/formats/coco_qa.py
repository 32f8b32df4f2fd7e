"""COCO-QA (Ren et al. 2015): questions made from captions, as four text files a split with a line a question.

Pictures of train are COCO's train2014, those of test its val2014.
"""

from pathlib import Path

import numpy as np

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.data.formats.columns import picture_table, single_answers
from vqa.data.formats.decode import fits_id, read_lines
from vqa.data.formats.find import need_file, picture_folder
from vqa.errors import InputError

SPLITS = {"train": "train", "test": "test"}  # no validation split is published: hold out pictures of train
ABOUT = "COCO-QA: one-word answers about objects, numbers, colours and places in COCO photographs"
TYPES = ("object", "number", "color", "location")  # types.txt says 0 to 3
PICTURED = {"train": "train2014", "test": "val2014"}


def read(root: Path, split: str) -> QADataset:
    """Read `<split>/{questions,answers,types,img_ids}.txt`; question ids count the lines from 0.

    The published type of question is the column `question_type`.
    """
    first = need_file(root / split if (root / split).is_dir() else root, f"coco_qa {split}", "questions.txt")
    paths = [first, *(first.parent / f"{name}.txt" for name in ("answers", "types", "img_ids"))]
    columns = [[line.strip() for line in read_lines(path)] for path in paths]
    count = len(columns[0])
    for path, column in zip(paths, columns, strict=True):
        if len(column) != count:
            raise InputError(f"{path}: {len(column)} lines, but {count} in {first}")
        empty = next((line for line, text in enumerate(column, start=1) if not text), None)
        if empty is not None:
            raise InputError(f"{path}: line {empty} is empty")
    questions, answers, types, pictures = columns
    wrong = next((line for line, text in enumerate(types, start=1) if text not in ("0", "1", "2", "3")), None)
    if wrong is not None:
        raise InputError(f"{paths[2]}: line {wrong}: a type is 0, 1, 2 or 3, not {types[wrong - 1]!r}")
    wrong = next((line for line, text in enumerate(pictures, start=1) if not fits_id(text)), None)
    if wrong is not None:
        raise InputError(f"{paths[3]}: line {wrong}: a COCO image id is expected, not {pictures[wrong - 1]!r}")
    ids, image_row_N = picture_table([str(int(text)) for text in pictures])
    names = [f"COCO_{PICTURED[split]}_{int(number):012d}.jpg" for number in ids]
    folder = picture_folder(root, (PICTURED[split],), names)
    answer = Strings.of(answers)
    return QADataset(
        format="coco_qa",
        split=split,
        question_id_N=np.arange(count, dtype=np.int64),
        image_row_N=image_row_N,
        images=ImageTable(ids, tuple(folder / name for name in names)),
        question=Strings.of(questions),
        answers=single_answers(answer),
        majority=answer,
        question_type=Strings.of([TYPES[int(text)] for text in types]),
        data_type="coco_qa",
        files=tuple(paths),
    )
