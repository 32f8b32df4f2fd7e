"""GQA (Hudson and Manning 2019), the balanced questions: JSON objects from question id to question."""

from pathlib import Path

import msgspec

from vqa.data.dataset import ImageTable, QADataset, Strings
from vqa.data.formats.columns import all_or_none, check_image_name, image_table, single_answers, unique_ids
from vqa.data.formats.decode import decode_file, decode_records, fits_id
from vqa.data.formats.find import image_folder, need_file
from vqa.errors import InputError

SPLITS = {"train": "train", "val": "val", "test": "test", "test-dev": "testdev"}
ABOUT = "GQA, balanced questions about Visual Genome photographs; one answer each"


class Types(msgspec.Struct, gc=False):
    structural: str | None = None


class GqaRecord(msgspec.Struct, gc=False, rename={"image_id": "imageId"}):
    image_id: str
    question: str
    answer: str | None = None
    types: Types | None = None


def read(root: Path, split: str) -> QADataset:
    """Read `<split>_balanced_questions.json`; the structural type is `question_type`.

    Question ids are published as digits with leading zeros and become integers. The test split has no answers.
    """
    return _read(need_file(root, f"gqa {split}", f"{split}_balanced_questions.json"), split, root)


def read_file(path: Path, split: str) -> QADataset:
    """Read a questions file lying anywhere, under any name."""
    return _read(path, split, path.parent)


def _read(path: Path, split: str, root: Path) -> QADataset:
    pieces = decode_file(path, dict[str, msgspec.Raw])
    wrong = next((key for key in pieces if not fits_id(key)), None)
    if wrong is not None:
        raise InputError(f"{path}: question id {wrong!r} is not a number")
    records = list(decode_records(list(pieces.values()), GqaRecord, f"{path}: question"))
    for key, record in zip(pieces, records, strict=True):
        check_image_name(record.image_id, f"{path}: question {key}")
    question_id_N = unique_ids([int(key) for key in pieces], path, "question")
    majority = all_or_none([record.answer for record in records], path, "answer")
    if majority is None and split != "test":
        raise InputError(f"{path}: no question has an answer")
    ids, image_row_N = image_table([record.image_id for record in records])
    names = [f"{number}.jpg" for number in ids]
    folder = image_folder(root, ("images",), names)
    return QADataset(
        format="gqa",
        split=split,
        question_id_N=question_id_N,
        image_row_N=image_row_N,
        images=ImageTable(ids, tuple(folder / name for name in names)),
        question=Strings.of([record.question for record in records]),
        answers=None if majority is None else single_answers(majority),
        majority=majority,
        question_type=all_or_none(
            [record.types.structural if record.types else None for record in records], path, "type"
        ),
        data_type="gqa",
        files=(path,),
    )
