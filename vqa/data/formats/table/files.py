"""The files that a table may be: CSV, TSV, JSON, JSON lines and parquet, each as rows of named cells.

A TSV is read as the media type is registered: a row a line, cells between tabs, every other sign a letter. In a CSV the
header says what is between the cells: a comma, a semicolon or a tab. What is JSON is seen from the content: a list of
objects, {"data": [...]} or one object a line.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from vqa.data.formats.decode import text_of
from vqa.data.formats.table.cells import Cell
from vqa.data.formats.table.names import KNOWN, canonical, has_question
from vqa.errors import InputError, first_line, needs_extra, quoted, shortened
from vqa.files import decode_json, encoding_of, open_regular, read_bytes

ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
ALWAYS = (".csv", ".tsv", ".jsonl")  # a file that ends so beside others is a table; of others, what looks like one
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
SPLITS = ("train", "val", "valid", "validation", "dev", "test")  # a JSON file that is called so is a table, too
HEAD = 1 << 16  # bytes of a JSON file that are looked at to see whether it is a table
LONGEST_CELL = 2**31 - 1  # letters: an image in base64 is one cell
ROWS_AT_ONCE = 256  # of a parquet file: each may hold an image
_LINE_END = re.compile(r"\r\n|\n|\r")

Row = Mapping[str, Cell]


@dataclass(frozen=True)
class RawTable:
    """A table's file, opened.

    Attributes:
        path: the file.
        unit: what its rows are counted by in messages, from 1: "line" or "row".
        names: of its columns, as the file has them.
        rows: given the columns that are asked for, yields the number and the cells of every row that is not blank.
        notes: what is to be said of how the file was read.
    """

    path: Path
    unit: str
    names: tuple[str, ...]
    rows: Callable[[Collection[str]], Iterator[tuple[int, Row]]]
    notes: tuple[str, ...] = ()

    def at(self, number: int) -> str:
        """How a message about a row begins."""
        return f"{self.path}: {self.unit} {number}"


def is_table_file(path: Path) -> bool:
    """Whether the ending is one of a table's."""
    return path.suffix.lower() in ENDINGS


def tables_in(folder: Path, given: Collection[str] = ()) -> list[Path]:
    """The tables in a folder: CSV, TSV and JSON lines, and of other JSON and parquet files those with a question.

    Args:
        given: names of columns that the user gives.
    """
    files = sorted(path for path in folder.iterdir() if is_table_file(path) and path.is_file())
    return [path for path in files if path.suffix.lower() in ALWAYS or _looks_like_table(path, given)]


def _looks_like_table(path: Path, given: Collection[str]) -> bool:
    if path.suffix.lower() == ".parquet":
        try:
            return has_question(open_table(path).names, given)
        except InputError:
            return True  # reading it says what is wrong
    if path.stem in SPLITS:
        return True
    try:
        with open_regular(path) as file:
            head = text_of(_whole_letters(file.read(HEAD)), path)
    except InputError:
        return False
    begin = re.match(r'\s*(?:\{.*?"data"\s*:\s*)?\[?\s*(?=\{)', head, re.DOTALL)
    try:
        first = json.JSONDecoder().raw_decode(head, begin.end())[0] if begin else None
    except ValueError:  # longer than the head, as a row with an image in it is
        return begin is not None and has_question(re.findall(r'"([^"]+)"\s*:', head), given)
    return isinstance(first, dict) and has_question(first, given)


def _whole_letters(head: bytes) -> bytes:
    """Without the letter at the end that is cut in two."""
    if encoding_of(head) == "UTF-8":
        return head.decode("utf-8", "ignore").encode()
    return head[: len(head) // 4 * 4]


def open_table(path: Path, given: Collection[str] = ()) -> RawTable:
    """Open a table.

    Args:
        given: names of columns that the user gives.

    Raises:
        InputError: naming the file, and line or row, where something is wrong. Of what is read row by row, some faults
            are found only then.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"{path}: a table ends in {', '.join(ENDINGS)}")
    if ending == ".parquet":
        return _parquet(path)
    content = read_bytes(path)
    encoding = encoding_of(content)
    text = text_of(content, path)
    notes = (
        [] if encoding == "UTF-8" else [f"read as {encoding}, as its byte order mark says; saving it as UTF-8 is safer"]
    )
    if ending in (".json", ".jsonl"):
        return _json(path, text, given, notes)
    return _csv(path, text, given, notes) if ending == ".csv" else _tsv(path, text, notes)


def _blank(cells: list[str]) -> bool:
    return not any(cell.strip() for cell in cells)  # blank, or the row of commas that spreadsheets leave


def _csv(path: Path, text: str, given: Collection[str], notes: list[str]) -> RawTable:
    said = re.match(r"\s*sep=(.)\r?\n?", text)  # Excel's way to say it
    text = text[said.end() :] if said else text
    separator = said[1] if said else _separator(text, given)
    first_line = 1 if said else 0
    if separator != ",":
        notes.append(f"its cells are read as separated by {SEPARATORS.get(separator, repr(separator))}")

    def records() -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(LONGEST_CELL)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        try:
            yield from ((reader.line_num + first_line, cells) for cells in reader if not _blank(cells))
        except csv.Error as error:
            raise InputError(f"{path}: line {reader.line_num + first_line}: {error}") from None

    return _with_header(path, records, "", notes)


def _separator(text: str, given: Collection[str]) -> str:
    """What is between the cells of a header: what makes most names that are known of it, else most names."""
    known = KNOWN.keys() | {canonical(name) for name in given}

    def names(separator: str) -> tuple[int, int]:
        csv.field_size_limit(LONGEST_CELL)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        try:
            cells = next((cells for cells in reader if not _blank(cells)), [])
        except csv.Error:
            return 0, 0
        return len({canonical(cell) for cell in cells} & known), len(cells)

    return max(SEPARATORS, key=names)  # of equals the first


def _tsv(path: Path, text: str, notes: list[str]) -> RawTable:
    def records() -> Iterator[tuple[int, list[str]]]:
        for number, line in enumerate(_LINE_END.split(text), start=1):
            if not _blank(cells := line.split("\t")):
                yield number, cells

    if re.search(r'(?:^|\t)"[^\t\r\n]*"(?=[\t\r\n]|\Z)', text, re.MULTILINE):
        notes.append('cells begin and end with a quotation mark; in a TSV it is a letter like others and is kept ("a")')
    return _with_header(path, records, "; in a TSV a cell holds neither a tab nor a line break", notes)


def _with_header(
    path: Path, records: Callable[[], Iterator[tuple[int, list[str]]]], hint: str, notes: list[str]
) -> RawTable:
    """A table whose first record names the columns; every other one must be as long."""
    header = next((cells for _, cells in records()), [])
    names = [cell.strip() for cell in header]
    lowered = [name.lower() for name in names]
    twice = next((name for name in sorted(lowered) if name and lowered.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: the header has two columns {shortened(twice)!r}")

    def rows(_: Collection[str]) -> Iterator[tuple[int, Row]]:
        above = records()
        next(above, None)
        for number, cells in above:
            if len(cells) != len(names):
                raise InputError(f"{path}: line {number}: {len(cells)} cells under a header of {len(names)}{hint}")
            yield number, dict(zip(names, cells, strict=True))

    return RawTable(path, "line", tuple(names), rows, tuple(notes))


def _json(path: Path, text: str, given: Collection[str], notes: list[str]) -> RawTable:
    """A list of objects, an object that has one under "data", or one object a line, whatever the ending says."""
    begins = text.lstrip()[:1]
    unit, rows = "row", list[tuple[int, Row]]()
    if begins == "[":
        rows = _objects(path, decode_json(msgspec.json.Decoder(list[msgspec.Raw]), text.encode(), str(path)))
    elif begins == "{" and (inner := _data_of(path, text, given)) is not None:
        rows = _objects(path, inner)
    else:
        unit = "line"
        lines = enumerate(_LINE_END.split(text), start=1)
        rows = [(number, _object(path, f"line {number}", line)) for number, line in lines if line.strip()]
    names = dict.fromkeys(name for _, row in rows for name in row)
    return RawTable(path, unit, tuple(names), lambda _: iter(rows), tuple(notes))


def _data_of(path: Path, text: str, given: Collection[str]) -> list[msgspec.Raw] | None:
    """The list under "data" where the whole file is one object; None where it is not, or is a row itself."""
    try:
        whole = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError):
        return None  # one object a line
    if "data" not in whole:
        if path.suffix.lower() == ".jsonl" or has_question(whole, given):
            return None  # a single line
        raise InputError(
            f"{path}: is an object with {quoted(list(whole))}; a table is a list of objects, one for each question, "
            f'or {{"data": [such a list]}}, or one object a line'
        )
    found: list[msgspec.Raw] = decode_json(
        msgspec.json.Decoder(list[msgspec.Raw]), bytes(whole["data"]), f"{path}: data"
    )
    return found


def _objects(path: Path, pieces: list[msgspec.Raw]) -> list[tuple[int, Row]]:
    return [(number, _object(path, f"row {number}", piece)) for number, piece in enumerate(pieces, start=1)]


_OBJECT = msgspec.json.Decoder(dict[str, Any], float_hook=str)  # 3.50 stays so


def _object(path: Path, where: str, text: Any) -> Row:
    try:
        return {name.strip(): cell for name, cell in _OBJECT.decode(text).items()}
    except (msgspec.MsgspecError, UnicodeError, RecursionError):  # again, for the words
        found: dict[str, Cell] = decode_json(_OBJECT, text, f"{path}: {where}")
        return found


def _parquet(path: Path) -> RawTable:
    with needs_extra("parquet", "tables in parquet files"):
        import pyarrow
        import pyarrow.parquet
    open_regular(path).close()  # says what is wrong with the file itself
    broken = (pyarrow.ArrowException, OSError, ValueError)

    def damaged(error: BaseException) -> InputError:
        return InputError(f"{path}: no parquet file that can be read: {shortened(first_line(error))}")

    def rows(wanted: Collection[str]) -> Iterator[tuple[int, Row]]:
        names = [name for name in file.schema_arrow.names if name.strip() in wanted]
        number = 0
        try:
            with pyarrow.parquet.ParquetFile(path) as opened:
                if not names:
                    yield from ((row + 1, {}) for row in range(opened.metadata.num_rows))
                for batch in opened.iter_batches(ROWS_AT_ONCE, columns=names) if names else ():
                    cells = {name.strip(): _cells(pyarrow, batch.column(name)) for name in names}
                    for row in range(batch.num_rows):
                        number += 1
                        yield number, {name: column[row] for name, column in cells.items()}
        except broken as error:
            raise damaged(error) from None

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = tuple(name.strip() for name in file.schema_arrow.names)
    except broken as error:
        raise damaged(error) from None
    return RawTable(path, "row", names, rows)


def _cells(pyarrow: Any, column: Any) -> list[Cell]:
    """A column of a parquet file as Python's values, numbers that are not whole as everyone prints them."""
    types, kind = pyarrow.types, column.type
    if types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if types.is_floating(kind):
        values_N: np.ndarray = column.to_numpy(zero_copy_only=False)
        return [None if np.isnan(value) else str(value) for value in values_N]
    if types.is_temporal(kind) or types.is_decimal(kind):
        column = column.cast(pyarrow.string())
    found: list[Cell] = column.to_pylist()
    return found
