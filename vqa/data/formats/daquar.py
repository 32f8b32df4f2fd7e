"""DAQUAR (Malinowski and Fritz 2014): questions about indoor photographs, in the data set's own raw text.

A question line, then an answer line; or three lines, the third naming the image. Answers are kept whole as
published: a list reads "book, scissor", words of one answer are joined by "_". Questions end in their image's name
("... in the image3 ?"), which is taken off, and read "the image" where it stands earlier: a model could know the
image by it.

The reduced set has files of its own (qa.37.raw.*). Where they are missing it is made from the full set by the published
lists: the 37 object classes of the images' segmentation (Gupta et al. 2013), and 25 of the test images. A question
is kept when its answer is one class, colour or number, or a list of classes; for the training split that gives the
published file again, all 3,876 questions in their order.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.data.formats.columns import single_answers
from vqa.data.formats.decode import fits_id, read_lines
from vqa.data.formats.find import find_file, image_folder, need_file
from vqa.errors import InputError

ENDINGS = (".txt", ".format_triple")
SPLITS = {"train": "train", "test": "test"}  # no validation split is published: hold out images of train
ABOUT = "DAQUAR, all 894 object classes; answers are whole lists"
ABOUT_REDUCED = "DAQUAR reduced to 37 object classes; answers are whole lists"
ABOUT_SINGLE = "DAQUAR, only the questions whose answer is one item"
ABOUT_REDUCED_SINGLE = "DAQUAR reduced to 37 object classes, only the questions whose answer is one item"

# The class names as the data set spells them.
CLASSES_37 = frozenset(
    (
        "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture",
        "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor_mat", "clothes",
        "ceiling", "books", "refridgerator", "television", "paper", "towel", "shower_curtain", "box", "whiteboard",
        "person", "night_stand", "toilet", "sink", "lamp", "bathtub", "bag",
    )
)  # fmt: skip
COLOURS = frozenset(["black", "blue", "brown", "gray", "green", "orange", "pink", "purple", "red", "white", "yellow"])
REDUCED_TEST_IMAGES = frozenset(
    f"image{number}"
    for number in (
        14, 28, 33, 39, 43, 84, 441, 516, 579, 580, 681, 693, 973, 1022, 1075, 1119, 1153, 1163, 1167, 1183, 1194, 1204,
        1229, 1329, 1444,
    )
)  # fmt: skip

IMAGE_NAME = re.compile(r"\s*(?:\b(?:in|on|of|at)\s+)?(?:\b(?:the|this|that)\s+)?\bimage\s?(\d+)\s*\??\s*$")
ANY_IMAGE_NAME = re.compile(r"\bimage\s?\d+\b")
IMAGE_LINE = re.compile(r"image\d+")


def read(root: Path, split: str) -> QADataset:
    """Read one split of the full set from `qa.894.raw.<split>.txt`."""
    return _read_raw(root, split, format="daquar", stems=(f"qa.894.raw.{split}",))


def read_reduced(root: Path, split: str) -> QADataset:
    """Read one split of the reduced set from `qa.37.raw.<split>.txt`, or make it from the full set.

    `qa.37.raw.reduced.test.txt` comes first. Question ids count from 0 in either case.
    """
    stems = (f"qa.37.raw.reduced.{split}", f"qa.37.raw.{split}")
    stems = stems if split == "test" else stems[::-1]
    full = f"qa.894.raw.{split}"
    own, whole = (find_file(root, *(stem + ending for stem in some for ending in ENDINGS)) for some in (stems, (full,)))
    if own is None and whole is not None:
        return _reduce(read(root, split))
    return _read_raw(root, split, format="daquar_reduced", stems=(*stems, full))


def _reduce(dataset: QADataset) -> QADataset:
    """The questions of the full set that belong to the reduced one."""
    majority = dataset.majority
    assert majority is not None
    kept = np.array([_is_reduced_answer(answer) for answer in majority.distinct])[majority.codes]
    if dataset.split == "test":
        listed = np.array([name in REDUCED_TEST_IMAGES for name in dataset.images.ids])
        kept &= listed[dataset.image_row_N]
    if not kept.any():
        raise InputError(f"{dataset.files[0]}: no question of it belongs to the reduced set; is it the published file?")
    return replace(dataset.take(kept), format="daquar_reduced", question_id_N=np.arange(kept.sum(), dtype=np.int64))


def _is_reduced_answer(answer: str) -> bool:
    items = [item.strip() for item in answer.split(",")]
    if len(items) == 1:
        return answer in CLASSES_37 or answer in COLOURS or answer.isdecimal()
    return all(item in CLASSES_37 for item in items)


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
    path = need_file(root, f"{format} {split}", *(stem + ending for stem in stems for ending in ENDINGS))
    questions, answers, numbers = _parse(path)
    image_number, image_row = np.unique(np.asarray(numbers, dtype=np.int64), return_inverse=True)
    names = [f"image{number}" for number in image_number.tolist()]
    folder, ending = _images(root, names)
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
    """Questions without the image's name, answers, and the images' numbers."""
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
        image = named[1] if named else None
        if step == 3:
            image = _image_line(path, *lines[start + 2])
        if image is None or not fits_id(image):
            raise InputError(f"{path}: line {line}: a question that does not end in its image's name: {question!r}")
        answer_line, answer = lines[start + 1]
        if IMAGE_NAME.search(answer):
            raise InputError(f"{path}: line {answer_line}: a question where an answer is expected: {answer!r}")
        questions.append(ANY_IMAGE_NAME.sub("image", IMAGE_NAME.sub(" ?", question)))
        answers.append(answer)
        numbers.append(int(image))
    return questions, answers, numbers


def _image_line(path: Path, line: int, text: str) -> str:
    if not IMAGE_LINE.fullmatch(text):
        raise InputError(f"{path}: line {line}: an image's name such as image3 is expected, not {text!r}")
    return text.removeprefix("image")


def _images(root: Path, names: list[str]) -> tuple[Path, str]:
    """The folder of the images and the ending of their names (published as PNG, often kept as JPEG)."""
    for ending in (".png", ".jpg", ".jpeg"):
        folder = image_folder(root, ("images",), [names[0] + ending, names[-1] + ending])
        if any((folder / (name + ending)).is_file() for name in (names[0], names[-1])):
            return folder, ending
    return image_folder(root, ("images",), []), ".png"
