"""The questions and human answers that results are scored against: a data set's split, official files, or one file.

One file is enough where it holds questions and answers: a table, GQA's questions, VizWiz's annotations.
"""

from pathlib import Path
from typing import Any

import msgspec

from vqa.data.dataset import QADataset
from vqa.data.formats import gqa, read_dataset, table, vizwiz
from vqa.data.formats.decode import decode_file
from vqa.data.formats.official import read_official
from vqa.errors import InputError
from vqa.evaluation.layouts.fields import choose, file_kind

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
FORMS = (
    "the official question and annotation files, or one file with both: a table (CSV, TSV, JSON lines), GQA's "
    "questions, VizWiz's annotations"
)


def read_truth(
    questions: Path, annotations: Path | None = None, split: str | None = None, *, hidden: bool = False
) -> QADataset:
    """Read what results are scored against.

    Args:
        questions: the official question file, or a file that holds questions and answers.
        annotations: the official annotation file; None, or the same file, where one holds both.
        split: of a table with a column `split`; by default the file's name.
        hidden: official questions alone will do, whose answers are hidden.

    Raises:
        InputError: naming the file and what could be read.
    """
    if annotations is None or annotations == questions:
        return _of_json(questions, split, hidden) if file_kind(questions) == ".json" else _of_table(questions, split)
    if file_kind(questions) in TABLES:
        raise InputError(f"{questions}: a table holds its answers; give it as --questions alone")
    return read_official(questions, annotations, as_annotated=True)


def _of_table(path: Path, split: str | None) -> QADataset:
    named = table.splits(path)
    return read_dataset("table", path, split or (named[0] if len(named) == 1 else path.stem))


def _of_json(path: Path, split: str | None, hidden: bool) -> QADataset:
    value: Any = decode_file(path, dict[str, msgspec.Raw] | list[msgspec.Raw])
    fields = list(_first(value))
    if isinstance(value, dict) and choose(fields, ("imageid",)):
        return gqa.read_file(path, split or path.stem)
    if isinstance(value, list) and "image" in fields and _is_vizwiz(_first(value)):
        return vizwiz.read(path.parent, path.stem)
    official = isinstance(value, dict) and {"questions", "annotations"} & value.keys()
    if official or (choose(fields, ("question_id",)) and "image" not in fields):
        if hidden and "annotations" not in value and "answers" not in fields:
            return read_official(path)
        held = "annotations" if "annotations" in value or "answers" in fields else "questions"
        raise InputError(f"{path}: holds official {held} only; give --questions FILE and --annotations FILE")
    if "question" not in fields:
        raise InputError(f"{path}: holds no questions and answers that are known here; give {FORMS}")
    return _of_table(path, split)


def _is_vizwiz(record: dict[str, Any]) -> bool:
    answers = record.get("answers")
    people = isinstance(answers, list) and bool(answers) and isinstance(answers[0], dict)
    return choose(list(record), ("question_id",)) is None and ("answerable" in record or people)


def _first(value: Any) -> dict[str, Any]:
    """The first record of a list, of an object of records, or of the list that an object holds; {} without one."""
    pieces = list(value.values()) if isinstance(value, dict) else value
    try:
        record = msgspec.json.decode(pieces[0])
        record = record[0] if isinstance(record, list) else record
    except (IndexError, msgspec.DecodeError):
        return {}
    return record if isinstance(record, dict) else {}
