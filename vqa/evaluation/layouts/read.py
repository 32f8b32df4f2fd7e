"""A results file of anyone, in whatever layout: which question, which answer.

Read are a JSON list of objects, `{"results": [...]}`, `{id: answer}`, a list of answers in the questions' order, JSON
lines, CSV and TSV, and XLSX with openpyxl. `vqa.evaluation.results.read_results` is the strict reader of the runs' own
files; what this one reads is matched with a data set by `vqa.evaluation.layouts.match`.

Legend: `R` records of a file.
"""

import csv
import io
import math
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from vqa.data.formats.decode import read_text
from vqa.errors import InputError, first_line, needs_extra, quoted, shortened
from vqa.evaluation.layouts import fields as f
from vqa.files import decode_json, open_regular

_JSON = msgspec.json.Decoder()
_LAYOUTS = (
    'a JSON list of {"question_id": 1, "answer": "yes"}, {"1": "yes", …}, JSON lines, CSV or TSV with a header, or '
    "the files of lmms-eval and VLMEvalKit"
)
Record = dict[str, Any]


class _Official(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A record of the official layout and no other, which is decoded several times as fast."""

    question_id: int
    answer: str


@dataclass(frozen=True)
class ResultsFile:
    """What a results file says, a row a record; lists of the same length, empty where the file has no such field.

    Attributes:
        path: the file.
        answers: the model's answers, as they are written.
        ids: which question each is of: its id, or its place.
        id_field: what the file calls that; "" without one.
        images: image names.
        questions: the questions' texts.
        targets: the true answers that the file repeats, to check places by.
        answer_field: what the file calls the answers; "answerable" where it has only VizWiz's second task.
        answerable: VizWiz's score of "answerable".
    """

    path: Path
    answers: list[str]
    ids: list[str]
    id_field: str = ""
    images: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    answer_field: str = "answer"
    answerable: tuple[float, ...] = ()


def read_file(path: Path) -> ResultsFile:
    """Read a results file in any of the layouts above.

    Raises:
        InputError: naming the file and the record that cannot be read, and what could be.
    """
    kind = f.file_kind(path)
    if kind in (".xlsx", ".xls"):
        return _of_records(path, _sheet(path), header=1)
    text = read_text(path)
    if kind in (".csv", ".tsv"):
        return _of_records(path, _table(path, text, "," if kind == ".csv" else "\t"), header=1)
    if not text.strip():
        raise InputError(f"{path}: is empty; a results file is {_LAYOUTS}")
    return _of_json(path, text)


def _of_json(path: Path, text: str) -> ResultsFile:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line and not line.isspace()]
    if len(lines) > 1 and _is_object(lines[0][1]):
        records = [decode_json(_JSON, line.encode(), f"{path}: line {number}") for number, line in lines]
        return _of_records(path, records, lines=[number for number, _ in lines])
    try:
        official = msgspec.json.decode(text, type=list[_Official])
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        official = []
    if official:
        ids = [str(one.question_id) for one in official]
        return ResultsFile(path, [one.answer for one in official], ids, "question_id")
    value = decode_json(_JSON, text.encode(), str(path))
    if isinstance(value, dict) and (name := _wrapper(value)) is not None:
        value = value[name]
    if (
        isinstance(value, dict)
        and len(lines) == 1
        and f.choose(list(value), f.IDS)
        and f.choose(list(value), f.ANSWERS)
    ):
        value = [value]  # JSON lines of one line
    if isinstance(value, dict):
        answers = [f.answer_text(one, f"{path}: question {shortened(key)}") for key, one in value.items()]
        return ResultsFile(path, answers, [key.strip() for key in value], id_field="id")
    if not isinstance(value, list):
        raise InputError(f"{path}: holds {quoted(value)}; a results file is {_LAYOUTS}")
    if value and all(isinstance(one, str) for one in value):
        return ResultsFile(path, value, [str(place) for place in range(len(value))], id_field="place")
    return _of_records(path, value)


def _is_object(line: str) -> bool:
    """Whether a line is a whole JSON object, so that the file is JSON lines."""
    try:
        return isinstance(_JSON.decode(line.encode()), dict)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False


def _wrapper(value: Record) -> str | None:
    """The key of the list that an object wraps, where there is exactly one such list of objects."""
    lists = [key for key, held in value.items() if isinstance(held, list) and held and isinstance(held[0], dict)]
    known = [key for key in lists if f.plain(key) in f.WRAPPERS]
    return known[0] if len(known) == 1 else lists[0] if len(lists) == 1 else None


def _of_records(
    path: Path, records: Sequence[Any], *, lines: Sequence[int] = (), header: int | None = None
) -> ResultsFile:
    """What a list of objects says.

    Args:
        lines: the line of each record, in JSON lines.
        header: the row of a table's header; with neither, records are counted from 0.
    """

    def where(place: int) -> str:
        if lines:
            return f"{path}: line {lines[place]}"
        return f"{path}: record {place} (counted from 0)" if header is None else f"{path}: row {header + 1 + place}"

    if not records:
        raise InputError(f"{path}: holds no answers; a results file is {_LAYOUTS}")
    wrong = next((place for place, record in enumerate(records) if not isinstance(record, dict)), None)
    if wrong is not None:
        raise InputError(f"{where(wrong)}: {quoted(records[wrong])} is no object; a results file is {_LAYOUTS}")
    if isinstance(records[0].get("doc"), dict):  # an older lmms-eval repeats the question's own record
        records = [{**record["doc"], **record} if isinstance(record.get("doc"), dict) else record for record in records]
    names = list(records[0])
    scores = f.choose(names, f.ANSWERABLE)
    answer = f.choose(names, f.ANSWERS) or scores or f.answer_field(names, where(0))
    key, image = f.choose(names, f.IDS), f.choose(names, f.IMAGES)
    if key is None and image is None:
        raise InputError(
            f"{where(0)}: no field says which question it is; it has {', '.join(map(shortened, names))}; known are "
            f"{', '.join(f.IDS)}, or image"
        )

    def column(name: str | None) -> tuple[str, ...]:
        if name is None:
            return ()
        values = (record.get(name) for record in records)
        return tuple(
            str(value) if type(value) is int else f.id_text(_field(records[i], name, where(i)), where(i))
            for i, value in enumerate(values)
        )

    answers = [
        value if isinstance(value, str) else f.answer_text(_field(records[i], answer, where(i)), where(i))
        for i, value in enumerate(record.get(answer) for record in records)
    ]
    if answer == scores:
        answers = [""] * len(records)
    answerable: tuple[float, ...] = ()
    if scores is not None:
        answerable = tuple(_number(_field(record, scores, where(i)), where(i)) for i, record in enumerate(records))
    targets, question = f.choose(names, f.TARGETS), f.choose(names, f.QUESTIONS)
    return ResultsFile(
        path, answers, list(column(key)), "" if key is None else f.plain(key),
        images=() if image is None or key is not None else column(image),
        questions=_texts(records, question), targets=_texts(records, targets), answer_field=answer,
        answerable=answerable,
    )  # fmt: skip


def _texts(records: Sequence[Record], name: str | None) -> tuple[str, ...]:
    return () if name is None else tuple(str(record.get(name, "")) for record in records)


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: answerable {quoted(value)} is no finite number")
    return number


def _field(record: Record, name: str, where: str) -> Any:
    if name not in record:
        raise InputError(f"{where}: has no {name!r}, which the first record has")
    return record[name]


def _table(path: Path, text: str, delimiter: str) -> list[Record]:
    """The rows of a CSV or TSV; TSV with quotation marks as pandas writes it, or without."""
    try:
        return _records(path, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except (csv.Error, InputError) as error:
        if delimiter == "\t":  # a quotation mark may be a letter
            return _records(path, csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE))
        raise error if isinstance(error, InputError) else InputError(f"{path}: not a CSV file: {error}") from None


def _sheet(path: Path) -> list[Record]:
    """The rows of the first sheet of a workbook."""
    with needs_extra("xlsx", "results in XLSX (a TSV or CSV of the same sheet needs nothing)"):
        import openpyxl
    if path.suffix.lower() == ".xls":
        raise InputError(f"{path}: the old XLS is not read; save it as TSV, CSV or XLSX")
    with open_regular(path) as file:
        try:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            rows = [["" if cell is None else cell for cell in row] for row in book.worksheets[0].values]
        except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not an XLSX workbook: {first_line(error)}") from None
    return _records(path, rows)


def _records(path: Path, rows: Iterable[Sequence[Any]]) -> list[Record]:
    """The rows under a header as records; blank rows are left out."""
    filled = [(number, cells) for number, cells in enumerate(rows, start=1) if any(str(cell).strip() for cell in cells)]
    if not filled:
        return []
    header = [str(cell).strip() for cell in filled[0][1]]
    wrong = next((pair for pair in filled if len(pair[1]) != len(header)), None)
    if wrong is not None:
        raise InputError(f"{path}: row {wrong[0]} has {len(wrong[1])} cells under a header of {len(header)}")
    return [dict(zip(header, cells, strict=True)) for _, cells in filled[1:]]
