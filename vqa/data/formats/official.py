"""The official VQA files: questions, multiple-choice questions, annotations, complementary pairs (JSON).

Schemas: https://visualqa.org/download.html and vqa_v1_download.html. VQA v1, v2, the abstract scenes, balanced binary,
VQA-CP, OK-VQA and TDIUC share them. Legend: `N` questions, `P` pairs.
"""

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vqa.data.binary_cache import cached_columns
from vqa.data.dataset import ImageTable, PathList, QADataset, Strings, StringsBuilder
from vqa.data.formats.columns import all_or_none, check_answers, most_frequent, unique_ids
from vqa.data.formats.decode import Id, decode_file, decode_records
from vqa.data.formats.find import coco_2017, find_file, image_folder, need_file, not_found
from vqa.errors import InputError

ANY_IMAGE = -1  # of an annotation that leaves the image to its question
COCO_SPLITS = (None, "train2014", "val2014")  # what a question of VQA-CP may say; others say nothing


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
    coco_split: str | None = None  # VQA-CP: the COCO split that the image comes from


class AnnotationFile(msgspec.Struct, gc=False):
    """The outside of an annotations file; the annotations are not decoded yet."""

    annotations: list[msgspec.Raw]
    data_subtype: str = ""


class AnswerRecord(msgspec.Struct, gc=False):
    answer: str


class AnnotationRecord(msgspec.Struct, gc=False):
    """What a field says twice is not demanded: the image stands in the questions file, the majority in the answers."""

    question_id: Id
    answers: list[AnswerRecord | str]
    image_id: Id | None = None
    multiple_choice_answer: str | None = None
    question_type: str | None = None
    answer_type: str | None = None


@dataclass(frozen=True)
class Questions:
    """A questions file in columns of `N` rows; `choices` is None in open-ended files, `coco_split` outside VQA-CP."""

    path: Path
    question_id_N: NDArray[np.int64]
    image_id_N: NDArray[np.int64]
    question: Strings
    data_type: str
    data_subtype: str
    choices: Strings | None = None
    coco_split: Strings | None = None


@dataclass(frozen=True)
class Annotations:
    """An annotations file in columns of `N` rows; types are None where the file has none.

    A row without `image_id` has `ANY_IMAGE`; one without a majority answer gets the most frequent of its answers, of
    equals the first.
    """

    path: Path
    question_id_N: NDArray[np.int64]
    image_id_N: NDArray[np.int64]
    answers: Strings
    majority: Strings
    data_subtype: str
    question_type: Strings | None = None
    answer_type: Strings | None = None


@dataclass(frozen=True)
class ImageFiles:
    """Where the images of official files lie, and what they are called.

    Attributes:
        folder: holds the images, themselves or in sub-folders (see `image_folder`); None stands for the folder of the
            questions file, and nothing is looked for: enough where images are not needed.
        data_type: "mscoco" or "abstract_v002", as in their names; None takes it from the questions file.
        split: the split in their names where it is not that of the questions; VQA-CP files say it themselves.
        prefix: put before the image id where ids of two splits could be equal ("train2017/").
    """

    folder: Path | None = None
    data_type: str | None = None
    split: str | None = None
    prefix: str = ""


ANY_IMAGES = ImageFiles()


def read_official(
    questions: Path,
    annotations: Path | None = None,
    multiple_choice: Path | None = None,
    images: ImageFiles = ANY_IMAGES,
    *,
    pairs: Path | None = None,
    format: str = "official",
    split: str | None = None,
    answers_missing: str = "",
    as_annotated: bool = False,
) -> QADataset:
    """Read official files lying anywhere.

    Args:
        questions: an open-ended or a multiple-choice questions file; its order is the order of the data set, unless
            `as_annotated`.
        annotations: the annotations of exactly these questions, in any order; None where answers are hidden.
        multiple_choice: the multiple-choice questions file of the same questions, in any order.
        images: where they lie, and what they are called.
        pairs: the list of complementary pairs; pairs of questions that are not in `questions` are left out.
        format: what the data set calls itself.
        split: the split's name; None takes `data_subtype` from the questions file.
        answers_missing: what to say when answers are needed, where `annotations` should be there and are not.
        as_annotated: take the order of `annotations`, in which the official program adds up.

    Raises:
        InputError: naming the file and the item, when a file is missing, damaged or contradicts another.
    """
    asked = read_questions(questions)
    split = split or asked.data_subtype or questions.stem
    data_type = images.data_type or asked.data_type or "mscoco"
    columns: dict[str, Any] = {"choices": asked.choices}
    if multiple_choice is not None:
        columns["choices"] = _choices(asked, read_questions(multiple_choice))
    annotated_N = np.arange(len(asked.question_id_N))
    if annotations is not None:
        answered = read_annotations(annotations)
        annotated_N = _align(asked, answered, "annotation")
        columns |= _answers(answered, annotated_N)
    table, image_row_N = _images(asked, data_type, split, images)
    dataset = QADataset(
        format=format,
        split=split,
        question_id_N=asked.question_id_N,
        image_row_N=image_row_N,
        images=table,
        question=asked.question,
        pairs_P2=None if pairs is None else _read_pairs(pairs, asked),
        data_type=data_type,
        files=tuple(path for path in (questions, multiple_choice, annotations, pairs) if path is not None),
        answers_missing=answers_missing,
        **columns,
    )
    reorder = as_annotated and (np.diff(annotated_N) < 0).any()
    return dataset.take(np.argsort(annotated_N)) if reorder else dataset


def read_folder(
    root: Path,
    split: str,
    *,
    format: str,
    data_type: str,
    prefix: str = "",
    image_split: str | None = None,
    image_prefix: str = "",
) -> QADataset:
    """Find and read the official files of one split below `root`, whatever is there of them.

    Args:
        root: the folder of the data set.
        split: the official name of the split; answers are expected unless it begins with "test", and where they are
            not there the data set says so when they are needed: features can be extracted without.
        format: the reader's name.
        data_type: "mscoco" or "abstract_v002", as in the file names.
        prefix: "v2_" in the file names of VQA v2.
        image_split: see `ImageFiles.split`.
        image_prefix: see `ImageFiles.prefix`.
    """
    middle = f"{data_type}_{split}"
    what = f"{format} {split}"
    open_ended = f"{prefix}OpenEnded_{middle}_questions.json"
    answered = f"{prefix}{middle}_annotations.json"
    choices = find_file(root, f"{prefix}MultipleChoice_{middle}_questions.json")
    annotations = None if split.startswith("test") else find_file(root, answered)
    questions = find_file(root, open_ended) or choices or need_file(root, what, open_ended, beside=annotations)
    hidden = annotations is not None or split.startswith("test")
    return read_official(
        questions,
        annotations,
        None if choices == questions else choices,
        ImageFiles(root, data_type, image_split, image_prefix),
        pairs=find_file(root, f"{prefix}{middle}_complementary_pairs.json"),
        format=format,
        split=split,
        answers_missing="" if hidden else not_found(root, what, answered, beside=questions),
    )


def image_name(data_type: str, split: str, number: int) -> str:
    """The official file name of an image.

    >>> image_name("mscoco", "train2014", 9)
    'COCO_train2014_000000000009.jpg'
    >>> image_name("abstract_v002", "val2015", 20000)
    'abstract_v002_val2015_000000020000.png'
    """
    if data_type == "mscoco":
        return f"COCO_{split}_{number:012d}.jpg"
    return f"{data_type}_{split}_{number:012d}.png"


def read_questions(path: Path) -> Questions:
    """Read one questions file, open-ended or multiple-choice; raises InputError naming the file and the item."""
    return Questions(path, **cached_columns(path, "questions", lambda: _question_columns(path)))


def _question_columns(path: Path) -> dict[str, Any]:
    decoded = decode_file(path, QuestionFile | list[msgspec.Raw])
    file = QuestionFile(decoded) if isinstance(decoded, list) else decoded
    question_ids, image_ids = array("q"), array("q")
    texts, choices = StringsBuilder(), StringsBuilder()
    coco_splits: list[str | None] = []
    for record in decode_records(file.questions, QuestionRecord, f"{path}: question"):
        question_ids.append(record.question_id)
        image_ids.append(record.image_id)
        texts.add((record.question,))
        if record.coco_split not in COCO_SPLITS:
            known = " or ".join(COCO_SPLITS[1:])
            raise InputError(f"{path}: question {record.question_id}: coco_split {record.coco_split!r} is not {known}")
        coco_splits.append(record.coco_split)
        if record.multiple_choices is not None:
            choices.add(record.multiple_choices)
    question_id_N = unique_ids(question_ids, path, "question")
    if len(choices) not in (0, len(question_ids)):
        raise InputError(f"{path}: only {len(choices)} of {len(question_ids)} questions have multiple_choices")
    return {
        "question_id_N": question_id_N,
        "image_id_N": np.array(image_ids, dtype=np.int64),
        "question": texts.build_column(),
        "data_type": file.data_type,
        "data_subtype": file.data_subtype,
        "choices": choices.build() if len(choices) else None,
        "coco_split": all_or_none(coco_splits, path, "coco_split"),
    }


def read_annotations(path: Path) -> Annotations:
    """Read one annotations file; raises InputError naming the file and the item."""
    return Annotations(path, **cached_columns(path, "annotations", lambda: _annotation_columns(path)))


def _annotation_columns(path: Path) -> dict[str, Any]:
    decoded = decode_file(path, AnnotationFile | list[msgspec.Raw])
    file = AnnotationFile(decoded) if isinstance(decoded, list) else decoded
    question_ids, image_ids = array("q"), array("q")
    answers, majority = StringsBuilder(), StringsBuilder()
    question_types: list[str | None] = []
    answer_types: list[str | None] = []
    for record in decode_records(file.annotations, AnnotationRecord, f"{path}: annotation"):
        given = [answer if isinstance(answer, str) else answer.answer for answer in record.answers]
        check_answers(given, f"{path}: question {record.question_id}")
        question_ids.append(record.question_id)
        image_ids.append(ANY_IMAGE if record.image_id is None else record.image_id)
        answers.add(given)
        most = record.multiple_choice_answer
        majority.add((most_frequent(given) if most is None else most,))
        question_types.append(record.question_type)
        answer_types.append(record.answer_type)
    return {
        "question_id_N": unique_ids(question_ids, path, "annotation"),
        "image_id_N": np.array(image_ids, dtype=np.int64),
        "answers": answers.build(),
        "majority": majority.build_column(),
        "data_subtype": file.data_subtype,
        "question_type": all_or_none(question_types, path, "question_type"),
        "answer_type": all_or_none(answer_types, path, "answer_type"),
    }


def read_pairs(path: Path) -> NDArray[np.int64]:
    """All pairs of question ids of a complementary-pairs file, int64 `[P, 2]`."""
    return np.array(decode_file(path, list[tuple[Id, Id]]), dtype=np.int64).reshape(-1, 2)


def _align(asked: Questions, other: Questions | Annotations, item: str) -> NDArray[np.int64]:
    """The row of `other` for each question; raises InputError unless both hold the same questions and images."""
    order, other_order = np.argsort(asked.question_id_N), np.argsort(other.question_id_N)
    if not np.array_equal(asked.question_id_N[order], other.question_id_N[other_order]):
        raise InputError(_difference(asked, other, item))
    row_N = np.empty_like(order)
    row_N[order] = other_order
    image_id_N = other.image_id_N[row_N]
    wrong = np.flatnonzero((image_id_N != asked.image_id_N) & (image_id_N != ANY_IMAGE))
    if len(wrong):
        row = wrong[0]
        raise InputError(
            f"{other.path}: question {asked.question_id_N[row]} is about image {image_id_N[row]}, "
            f"but about image {asked.image_id_N[row]} in {asked.path} ({len(wrong)} such questions)"
        )
    return row_N


def _difference(asked: Questions, other: Questions | Annotations, item: str) -> str:
    """What to say of two files that do not hold the same questions."""
    without = np.setdiff1d(asked.question_id_N, other.question_id_N)
    extra = np.setdiff1d(other.question_id_N, asked.question_id_N)
    faults = []
    if len(without):
        faults.append(f"no {item} for {len(without)} questions of {asked.path} (the first: {without[0]})")
    if len(extra):
        faults.append(f"{len(extra)} {item}s whose question is not in {asked.path} (the first: {extra[0]})")
    message = f"{other.path}: {' and '.join(faults)}"
    if asked.data_subtype != other.data_subtype:
        message += f"; the files say they are of {asked.data_subtype!r} and {other.data_subtype!r}"
    return message


def _images(asked: Questions, data_type: str, split: str, images: ImageFiles) -> tuple[ImageTable, NDArray[np.int32]]:
    """The table of images in order of their ids, and the row of each question's image `[N]`."""
    image_split = images.split or split.replace("test-dev", "test")  # test-dev asks about images of the test split
    image_id_I, first_I, image_row_N = np.unique(asked.image_id_N, return_index=True, return_inverse=True)
    from_split = asked.coco_split or Strings((image_split,), np.zeros(len(image_row_N), dtype=np.int32))
    origins = [from_split.at(row) for row in first_I]
    numbers = image_id_I.tolist()
    names = [image_name(data_type, origin, number) for origin, number in zip(origins, numbers, strict=True)]
    folder = dict.fromkeys(from_split.distinct, asked.path.parent)
    moved: dict[int, str] = {}
    if images.folder is not None:
        for origin in folder:
            called = (origin,) if asked.coco_split else (split, origin)
            usual = [name for split in called for name in (split, f"scene_img_{data_type}_{split}")]
            there = [name for name, of in zip(names, origins, strict=True) if of == origin]
            folder[origin] = image_folder(images.folder, usual, there)
            if data_type == "mscoco":
                numbered = [number for number, of in zip(numbers, origins, strict=True) if of == origin]
                moved |= coco_2017(images.folder, origin, numbered, folder[origin], there)
    before = {origin: str(folder[origin] / "x")[:-1] for origin in folder}  # joining texts is faster than joining paths
    paths = PathList([before[origin] + name for origin, name in zip(origins, names, strict=True)])
    if moved:
        paths = PathList([moved.get(number, str(path)) for number, path in zip(numbers, paths, strict=True)])
    return ImageTable(tuple(f"{images.prefix}{n}" for n in numbers), paths), image_row_N.astype(np.int32)


def _answers(answered: Annotations, row_N: NDArray[np.int64]) -> dict[str, Strings | None]:
    columns = {name: getattr(answered, name) for name in ("answers", "majority", "question_type", "answer_type")}
    return {name: None if column is None else column.take(row_N) for name, column in columns.items()}


def _choices(asked: Questions, chosen: Questions) -> Strings:
    if chosen.choices is None:
        raise InputError(f"{chosen.path}: a multiple-choice file whose questions have no multiple_choices")
    row_N = _align(asked, chosen, "multiple-choice question")
    return chosen.choices.take(row_N)


def _read_pairs(path: Path, asked: Questions) -> NDArray[np.int64]:
    """Complementary pairs `[P, 2]` whose two questions are both in `asked`."""
    pairs_P2 = read_pairs(path)
    known = pairs_P2[np.isin(pairs_P2, asked.question_id_N).all(axis=1)]
    if len(pairs_P2) and not len(known):
        raise InputError(
            f"{path}: none of its {len(pairs_P2)} pairs is of questions in {asked.path}; is it of another split?"
        )
    return known
