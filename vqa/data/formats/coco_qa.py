"""COCO-QA (Ren et al. 2015): questions made from captions, as four text files a split with a line a question.

Images of train are COCO's train2014, those of test its val2014.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.data.formats.columns import image_table, single_answers
from vqa.data.formats.decode import fits_id, read_lines
from vqa.data.formats.find import coco_2017, image_folder, need_file
from vqa.errors import InputError

SPLITS = {"train": "train", "test": "test"}  # no validation split is published: hold out images of train
ABOUT = "COCO-QA: one-word answers about objects, numbers, colours and places in COCO photographs"
TYPES = ("object", "number", "color", "location")  # types.txt says 0 to 3
IMAGE_SPLIT = {"train": "train2014", "test": "val2014"}


def read(root: Path, split: str) -> QADataset:
    """Read `<split>/{questions,answers,types,img_ids}.txt`; question ids count the lines from 0.

    The published type of question is the column `question_type`. Answers and types may be missing.
    """
    first = need_file(root / split if (root / split).is_dir() else root, f"coco_qa {split}", "questions.txt")
    paths = {name: first.parent / f"{name}.txt" for name in ("questions", "answers", "types", "img_ids")}
    missing = "" if paths["answers"].is_file() else f"{paths['answers']}: no such file, though {first} is there"
    paths = {name: path for name, path in paths.items() if path.is_file() or name not in ("answers", "types")}
    columns = {name: [line.strip() for line in read_lines(path)] for name, path in paths.items()}
    _check_lines(paths, columns)
    questions, images, types = columns["questions"], columns["img_ids"], columns.get("types")
    ids, image_row_N = image_table([str(int(text)) for text in images])
    names = [f"COCO_{IMAGE_SPLIT[split]}_{int(number):012d}.jpg" for number in ids]
    folder = image_folder(root, (IMAGE_SPLIT[split],), names)
    moved = coco_2017(root, IMAGE_SPLIT[split], [int(number) for number in ids], folder, names)
    image_paths = tuple(Path(moved.get(int(n), folder / name)) for n, name in zip(ids, names, strict=True))
    answer = None if missing else Strings.of(columns["answers"])
    return QADataset(
        format="coco_qa",
        split=split,
        question_id_N=np.arange(len(questions), dtype=np.int64),
        image_row_N=image_row_N,
        images=ImageTable(ids, image_paths),
        question=Strings.of(questions),
        answers=None if answer is None else single_answers(answer),
        majority=answer,
        question_type=None if types is None else Strings.of([TYPES[int(text)] for text in types]),
        data_type="coco_qa",
        files=tuple(paths.values()),
        answers_missing=missing,
    )


def _check_lines(paths: Mapping[str, Path], columns: Mapping[str, Sequence[str]]) -> None:
    """Raises InputError unless the files have the same number of lines, none empty, with types and ids as published."""
    count = len(columns["questions"])
    for name, column in columns.items():
        if len(column) != count:
            raise InputError(f"{paths[name]}: {len(column)} lines, but {count} in {paths['questions']}")
        for line, text in enumerate(column, start=1):
            where = f"{paths[name]}: line {line}"
            if not text:
                raise InputError(f"{where} is empty")
            if name == "types" and text not in ("0", "1", "2", "3"):
                raise InputError(f"{where}: a type is 0, 1, 2 or 3, not {text!r}")
            if name == "img_ids" and not fits_id(text):
                raise InputError(f"{where}: a COCO image id is expected, not {text!r}")
