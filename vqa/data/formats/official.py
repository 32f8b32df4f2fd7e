"""The official VQA files: questions, multiple-choice questions, annotations, complementary pairs (JSON).

Schemas: https://visualqa.org/download.html and vqa_v1_download.html. VQA v1, v2, the abstract scenes, balanced binary
and VQA-CP share them. Legend: `N` questions, `P` pairs.
"""

from array import array
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ImageTable, QADataset, Strings, StringsBuilder
from vqa.data.formats.decode import Id, decode_file, decode_records
from vqa.data.formats.find import find_file, need_file, picture_folder
from vqa.errors import InputError

MOST_ANSWERS = 10  # human answers a question, as the metric knows it


class QuestionFile(msgspec.Struct, gc=False):
    """The outside of a questions file; the questions are not decoded yet."""

    questions: list[msgspec.Raw]
    data_type: str = ""
    data_subtype: str = ""


class QuestionRecord(msgspec.Struct, gc=False):
    question_id: Id
    image_id: Id
    question: str
    multiple_choices: list[str] | None = None


class AnnotationFile(msgspec.Struct, gc=False):
    """The outside of an annotations file; the annotations are not decoded yet."""

    annotations: list[msgspec.Raw]
    data_subtype: str = ""


class AnswerRecord(msgspec.Struct, gc=False):
    answer: str


class AnnotationRecord(msgspec.Struct, gc=False):
    question_id: Id
    image_id: Id
    multiple_choice_answer: str
    answers: list[AnswerRecord]
    question_type: str | None = None
    answer_type: str | None = None


@dataclass(frozen=True)
class Questions:
    """A questions file in columns of `N` rows; `choices` is None in open-ended files."""

    path: Path
    question_id_N: NDArray[np.int64]
    image_id_N: NDArray[np.int64]
    question: Strings
    choices: Strings | None
    data_type: str
    data_subtype: str


@dataclass(frozen=True)
class Annotations:
    """An annotations file in columns of `N` rows; types are None where the file has none."""

    path: Path
    question_id_N: NDArray[np.int64]
    image_id_N: NDArray[np.int64]
    answers: Strings
    majority: Strings
    question_type: Strings | None
    answer_type: Strings | None
    data_subtype: str


def read_official(
    questions: Path,
    annotations: Path | None = None,
    multiple_choice: Path | None = None,
    images: Path | None = None,
    *,
    pairs: Path | None = None,
    format: str = "official",
    split: str | None = None,
    image_prefix: str = "",
) -> QADataset:
    """Read official files lying anywhere.

    Args:
        questions: an open-ended or a multiple-choice questions file; its order is the order of the data set.
        annotations: the annotations of exactly these questions, in any order; None where answers are hidden.
        multiple_choice: the multiple-choice questions file of the same questions, in any order.
        images: the folder that holds the pictures, themselves or in sub-folders (see `picture_folder`); None stands
            for the folder of `questions`, and nothing is looked for: enough where pictures are not needed.
        pairs: the list of complementary pairs; pairs of questions that are not in `questions` are left out.
        format: what the data set calls itself.
        split: the split's name; None takes `data_subtype` from the questions file.
        image_prefix: put before the image id where ids of two splits could be equal ("train2017/").

    Raises:
        InputError: naming the file and the item, when a file is missing, damaged or contradicts another.
    """
    asked = read_questions(questions)
    split = split or asked.data_subtype or questions.stem
    data_type = asked.data_type or "mscoco"
    columns: dict[str, Strings | None] = {"choices": asked.choices}
    if multiple_choice is not None:
        columns["choices"] = _choices(asked, read_questions(multiple_choice))
    if annotations is not None:
        columns |= _answers(asked, read_annotations(annotations))
    image_id, image_row = np.unique(asked.image_id_N, return_inverse=True)
    numbers = image_id.tolist()
    pictured = split.replace("test-dev", "test")  # test-dev questions are about pictures of the test split
    names = [picture_name(data_type, pictured, number) for number in numbers]
    folder = questions.parent if images is None else picture_folder(images, pictured, names)
    return QADataset(
        format=format,
        split=split,
        question_id_N=asked.question_id_N,
        image_row_N=image_row.astype(np.int32),
        images=ImageTable(tuple(f"{image_prefix}{n}" for n in numbers), tuple(folder / name for name in names)),
        question=asked.question,
        pairs_P2=None if pairs is None else _read_pairs(pairs, asked),
        data_type=data_type,
        files=tuple(path for path in (questions, multiple_choice, annotations, pairs) if path is not None),
        **columns,
    )


def read_folder(
    root: Path, split: str, *, format: str, data_type: str, prefix: str = "", image_prefix: str = ""
) -> QADataset:
    """Find and read the official files of one split below `root`, whatever is there of them.

    Args:
        root: the folder of the data set.
        split: the official name of the split; answers are expected unless it begins with "test".
        format: the reader's name.
        data_type: "mscoco" or "abstract_v002", as in the file names.
        prefix: "v2_" in the file names of VQA v2.
        image_prefix: see `read_official`.
    """
    middle = f"{data_type}_{split}"
    what = f"{format} {split}"
    open_ended = f"{prefix}OpenEnded_{middle}_questions.json"
    choices = find_file(root, f"{prefix}MultipleChoice_{middle}_questions.json")
    questions = find_file(root, open_ended) or choices or need_file(root, what, open_ended)
    annotations = None
    if not split.startswith("test"):
        annotations = need_file(root, what, f"{prefix}{middle}_annotations.json")
    return read_official(
        questions,
        annotations,
        None if choices == questions else choices,
        root,
        pairs=find_file(root, f"{prefix}{middle}_complementary_pairs.json"),
        format=format,
        split=split,
        image_prefix=image_prefix,
    )


def picture_name(data_type: str, split: str, number: int) -> str:
    """The official file name of a picture.

    >>> picture_name("mscoco", "train2014", 9)
    'COCO_train2014_000000000009.jpg'
    >>> picture_name("abstract_v002", "val2015", 20000)
    'abstract_v002_val2015_000000020000.png'
    """
    if data_type == "mscoco":
        return f"COCO_{split}_{number:012d}.jpg"
    return f"{data_type}_{split}_{number:012d}.png"


def read_questions(path: Path) -> Questions:
    """Read one questions file, open-ended or multiple-choice; raises InputError naming the file and the item."""
    file = decode_file(path, QuestionFile)
    question_ids, image_ids = array("q"), array("q")
    texts, choices = StringsBuilder(), StringsBuilder()
    for record in decode_records(file.questions, QuestionRecord, f"{path}: question"):
        question_ids.append(record.question_id)
        image_ids.append(record.image_id)
        texts.add((record.question,))
        if record.multiple_choices is not None:
            choices.add(record.multiple_choices)
    question_id_N = _unique_ids(question_ids, path, "question")
    if len(choices) not in (0, len(question_ids)):
        raise InputError(f"{path}: only {len(choices)} of {len(question_ids)} questions have multiple_choices")
    return Questions(
        path,
        question_id_N,
        np.array(image_ids, dtype=np.int64),
        texts.build_column(),
        choices.build() if len(choices) else None,
        file.data_type,
        file.data_subtype,
    )


def read_annotations(path: Path) -> Annotations:
    """Read one annotations file; raises InputError naming the file and the item."""
    file = decode_file(path, AnnotationFile)
    question_ids, image_ids = array("q"), array("q")
    answers, majority = StringsBuilder(), StringsBuilder()
    question_types: list[str | None] = []
    answer_types: list[str | None] = []
    for record in decode_records(file.annotations, AnnotationRecord, f"{path}: annotation"):
        if not 1 <= len(record.answers) <= MOST_ANSWERS:
            raise InputError(
                f"{path}: question {record.question_id} has {len(record.answers)} answers, not 1 to {MOST_ANSWERS}"
            )
        question_ids.append(record.question_id)
        image_ids.append(record.image_id)
        answers.add([answer.answer for answer in record.answers])
        majority.add((record.multiple_choice_answer,))
        question_types.append(record.question_type)
        answer_types.append(record.answer_type)
    return Annotations(
        path,
        _unique_ids(question_ids, path, "annotation"),
        np.array(image_ids, dtype=np.int64),
        answers.build(),
        majority.build_column(),
        _types(question_types, path, "question_type"),
        _types(answer_types, path, "answer_type"),
        file.data_subtype,
    )


def _unique_ids(ids: "array[int]", path: Path, item: str) -> NDArray[np.int64]:
    question_id_N = np.array(ids, dtype=np.int64)
    if not len(question_id_N):
        raise InputError(f"{path}: holds no {item}s")
    distinct, count = np.unique(question_id_N, return_counts=True)
    if len(distinct) < len(question_id_N):
        twice = distinct[count > 1]
        raise InputError(f"{path}: question_id {twice[0]} appears {count[count > 1][0]} times ({len(twice)} such ids)")
    return question_id_N


def _types(values: list[str | None], path: Path, name: str) -> Strings | None:
    absent = values.count(None)
    if absent == len(values):
        return None
    if absent:
        raise InputError(f"{path}: {absent} of {len(values)} annotations have no {name}")
    return Strings.of(values)


def _align(asked: Questions, other: Questions | Annotations, item: str) -> NDArray[np.int64]:
    """The row of `other` for each question; raises InputError unless both hold the same questions and pictures."""
    order = np.argsort(other.question_id_N)
    place = np.searchsorted(other.question_id_N, asked.question_id_N, sorter=order)
    row_N = order[np.minimum(place, len(order) - 1)]
    without = asked.question_id_N[other.question_id_N[row_N] != asked.question_id_N]
    extra = np.setdiff1d(other.question_id_N, asked.question_id_N)
    if len(without) or len(extra):
        faults = []
        if len(without):
            faults.append(f"no {item} for {len(without)} questions of {asked.path} (the first: {without[0]})")
        if len(extra):
            faults.append(f"{len(extra)} {item}s whose question is not in {asked.path} (the first: {extra[0]})")
        message = f"{other.path}: {' and '.join(faults)}"
        if asked.data_subtype != other.data_subtype:
            message += f"; the files say they are of {asked.data_subtype!r} and {other.data_subtype!r}"
        raise InputError(message)
    wrong = np.flatnonzero(other.image_id_N[row_N] != asked.image_id_N)
    if len(wrong):
        row = wrong[0]
        raise InputError(
            f"{other.path}: question {asked.question_id_N[row]} is about image {other.image_id_N[row_N[row]]}, "
            f"but about image {asked.image_id_N[row]} in {asked.path} ({len(wrong)} such questions)"
        )
    return row_N


def _answers(asked: Questions, answered: Annotations) -> dict[str, Strings | None]:
    row_N = _align(asked, answered, "annotation")
    columns = {name: getattr(answered, name) for name in ("answers", "majority", "question_type", "answer_type")}
    return {name: None if column is None else column.take(row_N) for name, column in columns.items()}


def _choices(asked: Questions, chosen: Questions) -> Strings:
    if chosen.choices is None:
        raise InputError(f"{chosen.path}: a multiple-choice file whose questions have no multiple_choices")
    row_N = _align(asked, chosen, "multiple-choice question")
    return chosen.choices.take(row_N)


def _read_pairs(path: Path, asked: Questions) -> NDArray[np.int64]:
    """Complementary pairs `[P, 2]` whose two questions are both in `asked`."""
    pairs_P2 = np.array(decode_file(path, list[tuple[Id, Id]]), dtype=np.int64).reshape(-1, 2)
    known = pairs_P2[np.isin(pairs_P2, asked.question_id_N).all(axis=1)]
    if len(pairs_P2) and not len(known):
        raise InputError(
            f"{path}: none of its {len(pairs_P2)} pairs is of questions in {asked.path}; is it of another split?"
        )
    return known
