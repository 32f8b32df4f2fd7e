"""DAQUAR (Malinowski and Fritz 2014): questions about indoor photographs, in the data set's own raw text.

A question line, then an answer line; or three lines, the third naming the picture. Answers are kept whole as
published: a list reads "book, scissor", words of one answer are joined by "_". Questions end in their picture's name
("... in the image3 ?"), which is taken off, and read "the image" where it stands earlier: a model could know the
picture by it.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.data.formats.columns import single_answers
from vqa.data.formats.decode import fits_id, read_lines
from vqa.data.formats.find import need_file, picture_folder
from vqa.errors import InputError

SPLITS = {"train": "train", "test": "test"}  # no validation split is published: hold out pictures of train
ABOUT = "DAQUAR, all 894 object classes; answers are whole lists"
ABOUT_REDUCED = "DAQUAR reduced to 37 object classes; answers are whole lists"
ABOUT_SINGLE = "DAQUAR, only the questions whose answer is one item"
ABOUT_REDUCED_SINGLE = "DAQUAR reduced to 37 object classes, only the questions whose answer is one item"

IMAGE_NAME = re.compile(r"\s*(?:\b(?:in|on|of|at)\s+)?(?:\b(?:the|this|that)\s+)?\bimage\s?(\d+)\s*\??\s*$")
ANY_IMAGE_NAME = re.compile(r"\bimage\s?\d+\b")
IMAGE_LINE = re.compile(r"image\d+")


def read(root: Path, split: str) -> QADataset:
    """Read one split of the full set from `qa.894.raw.<split>.txt`."""
    return _read_raw(root, split, format="daquar", stems=(f"qa.894.raw.{split}",))


def read_reduced(root: Path, split: str) -> QADataset:
    """Read one split of the reduced set from `qa.37.raw.<split>.txt`; `qa.37.raw.reduced.test.txt` comes first."""
    stems = (f"qa.37.raw.reduced.{split}", f"qa.37.raw.{split}")
    return _read_raw(root, split, format="daquar_reduced", stems=stems if split == "test" else stems[::-1])


def read_single(root: Path, split: str) -> QADataset:
    """The questions of the full set whose answer is one item; their ids are those of the full set."""
    return _single(read(root, split), "daquar_single")


def read_reduced_single(root: Path, split: str) -> QADataset:
    """The questions of the reduced set whose answer is one item; their ids are those of the reduced set."""
    return _single(read_reduced(root, split), "daquar_reduced_single")


def _single(dataset: QADataset, format: str) -> QADataset:
    """Leave out the lists, as the published single-word figures do (about a tenth of the questions)."""
    majority = dataset.majority
    if majority is None:
        raise InputError(f"{dataset.name}: has no answers to tell lists by")
    one = np.array(["," not in answer for answer in majority.distinct])[majority.codes]
    if not one.any():
        raise InputError(f"{dataset.files[0]}: every answer is a list; none is left for {format}")
    return replace(dataset.take(one), format=format)


def _read_raw(root: Path, split: str, *, format: str, stems: Sequence[str]) -> QADataset:
    """Read the first of the files there is (`STEM.txt` or `STEM.format_triple`); question ids count from 0."""
    endings = (".txt", ".format_triple")
    path = need_file(root, f"{format} {split}", *(stem + ending for stem in stems for ending in endings))
    questions, answers, numbers = _parse(path)
    image_number, image_row = np.unique(np.asarray(numbers, dtype=np.int64), return_inverse=True)
    names = [f"image{number}" for number in image_number.tolist()]
    folder, ending = _pictures(root, names)
    answer = Strings.of(answers)
    return QADataset(
        format=format,
        split=split,
        question_id_N=np.arange(len(questions), dtype=np.int64),
        image_row_N=image_row.astype(np.int32),
        images=ImageTable(tuple(names), tuple(folder / (name + ending) for name in names)),
        question=Strings.of(questions),
        answers=single_answers(answer),
        majority=answer,
        data_type="daquar",
        files=(path,),
    )


def _parse(path: Path) -> tuple[list[str], list[str], list[int]]:
    """Questions without the picture's name, answers, and the pictures' numbers."""
    lines = [(number, text) for number, line in enumerate(read_lines(path), start=1) if (text := line.strip())]
    if not lines:
        raise InputError(f"{path}: holds no questions")
    step = 3 if len(lines) >= 3 and IMAGE_LINE.fullmatch(lines[2][1]) else 2
    questions: list[str] = []
    answers: list[str] = []
    numbers: list[int] = []
    for start in range(0, len(lines), step):
        line, question = lines[start]
        if start + step > len(lines):
            raise InputError(f"{path}: line {line}: the file ends in the middle of a question and its answer")
        named = IMAGE_NAME.search(question)
        picture = named[1] if named else None
        if step == 3:
            picture = _picture_line(path, *lines[start + 2])
        if picture is None or not fits_id(picture):
            raise InputError(f"{path}: line {line}: a question that does not end in its picture's name: {question!r}")
        answer_line, answer = lines[start + 1]
        if IMAGE_NAME.search(answer):
            raise InputError(f"{path}: line {answer_line}: a question where an answer is expected: {answer!r}")
        questions.append(ANY_IMAGE_NAME.sub("image", IMAGE_NAME.sub(" ?", question)))
        answers.append(answer)
        numbers.append(int(picture))
    return questions, answers, numbers


def _picture_line(path: Path, line: int, text: str) -> str:
    if not IMAGE_LINE.fullmatch(text):
        raise InputError(f"{path}: line {line}: a picture's name such as image3 is expected, not {text!r}")
    return text.removeprefix("image")


def _pictures(root: Path, names: list[str]) -> tuple[Path, str]:
    """The folder of the pictures and the ending of their names (published as PNG, often kept as JPEG)."""
    for ending in (".png", ".jpg", ".jpeg"):
        folder = picture_folder(root, ("images",), [names[0] + ending, names[-1] + ending])
        if any((folder / (name + ending)).is_file() for name in (names[0], names[-1])):
            return folder, ending
    return picture_folder(root, ("images",), []), ".png"
