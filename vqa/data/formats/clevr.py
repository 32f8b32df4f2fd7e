"""CLEVR v1.0, CoGenT and CLEVR-Humans (Johnson et al. 2017): rendered scenes of simple solids; one answer each.

Files that the public generator writes read alike.
"""

from pathlib import Path

import msgspec

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.data.formats.columns import all_or_none, check_image_name, image_table, single_answers
from vqa.data.formats.decode import Id, decode_file, decode_records
from vqa.data.formats.find import image_folder, need_file
from vqa.data.formats.ids import numbered
from vqa.errors import InputError

COGENT = {name: name for name in ("trainA", "valA", "valB", "testA", "testB")}
SPLITS = {"train": "train", "val": "val", "test": "test", **COGENT, "new": "new"}
ABOUT = "CLEVR v1.0, CoGenT, or made by the public generator: counting, comparing and finding in rendered scenes"
HUMANS = {"train": "train", "val": "val", "test": "test"}
ABOUT_HUMANS = "CLEVR-Humans: people's questions about CLEVR's scenes"


class ClevrFile(msgspec.Struct, gc=False):
    questions: list[msgspec.Raw]


class Step(msgspec.Struct, gc=False):
    """One step of a program; the generator calls its function `type`."""

    function: str | None = None
    type: str | None = None


class ClevrRecord(msgspec.Struct, gc=False):
    """One question. Numbers and true or false as answers are those of the generator."""

    image_filename: str
    question: str
    question_index: Id | None = None
    answer: str | int | bool | None = None
    program: list[Step] | None = None


def read(root: Path, split: str) -> QADataset:
    """Read `CLEVR_<split>_questions.json`; the last function of a question's program is its `question_type`.

    The splits of CoGenT are trainA, valA, valB, testA and testB; "new" is what the generator writes when no name is
    given to it, `CLEVR_questions.json`. Questions without `question_index` are numbered from 0.
    """
    names = [f"CLEVR_{split}_questions.json", *(["CLEVR_questions.json"] if split == "new" else [])]
    return _read(root, split, "clevr", names)


def read_humans(root: Path, split: str) -> QADataset:
    """Read `CLEVR-Humans-<split>.json`."""
    return _read(root, split, "clevr_humans", [f"CLEVR-Humans-{split}.json"])


def _read(root: Path, split: str, format: str, file_names: list[str]) -> QADataset:
    path = need_file(root, f"{format} {split}", *file_names)
    file: ClevrFile = decode_file(path, ClevrFile)
    questions, keys = [], []
    numbers: list[int | None] = []
    answers: list[str | None] = []
    kinds: list[str | None] = []
    for place, record in enumerate(decode_records(file.questions, ClevrRecord, f"{path}: question")):
        check_image_name(record.image_filename, f"{path}: question {place} (counted from 0)")
        numbers.append(record.question_index)
        questions.append(record.question)
        keys.append(record.image_filename)
        answers.append(_answer(record.answer))
        kinds.append((record.program[-1].function or record.program[-1].type) if record.program else None)
    question_id_N = numbered(numbers, path)
    majority = all_or_none(answers, path, "answer")
    if majority is None and not split.startswith("test"):
        raise InputError(f"{path}: no question has an answer")
    names, image_row_N = image_table(keys)
    folder = image_folder(root, (split,), names)
    return QADataset(
        format=format,
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


def _answer(answer: str | int | bool | None) -> str | None:
    """An answer as the published files have it: "yes", "no", "3"."""
    if isinstance(answer, bool):
        return "yes" if answer else "no"
    return None if answer is None else str(answer)
