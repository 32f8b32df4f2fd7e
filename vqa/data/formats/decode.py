"""Files decoded straight into typed records, one at a time, with errors that name the file and the record.

A list of records is first cut into undecoded pieces (`msgspec.Raw`, views into the file's bytes) and each piece is
decoded when its turn comes. The four million answer records of VQA v2 therefore never exist all at once.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from vqa.errors import InputError
from vqa.files import decode_json, read_bytes, utf8

Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]  # fits int64
Record = TypeVar("Record")


def decode_file(path: Path, type: Any) -> Any:
    """Read JSON into a msgspec `type`; raises InputError naming the file and the wrong item."""
    return _decode(msgspec.json.Decoder(type), utf8(read_bytes(path), str(path)), str(path))


def decode_records(pieces: Sequence[msgspec.Raw], type: type[Record], where: str) -> Iterator[Record]:
    """Decode undecoded pieces one by one; `where` ("FILE: question") begins the message about a bad one."""
    decoder = msgspec.json.Decoder(type)
    for place, piece in enumerate(pieces):
        yield _decode(decoder, piece, where, place)


def decode_line(text: str, type: Any, path: Path, line: int) -> Any:
    """Decode JSON that stands in one line of a file; raises InputError naming file and line."""
    return _decode(msgspec.json.Decoder(type), text, f"{path}: line {line}")


def read_text(path: Path) -> str:
    """Read text: UTF-8, or what a byte order mark says; raises InputError that names file and line otherwise."""
    return text_of(read_bytes(path), path)


def text_of(content: bytes, path: Path) -> str:
    """The text of a file's bytes, as `read_text` reads it."""
    data = utf8(content, str(path))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line} is not UTF-8 ({error.reason}); save the file as UTF-8") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without their ends; only line feeds end a line, as in the published files."""
    return [line.removesuffix("\r") for line in read_text(path).removesuffix("\n").split("\n")]


def fits_id(text: str) -> bool:
    """Whether `text` is a decimal number that an `Id` holds."""
    return len(text) <= 19 and text.isascii() and text.isdecimal() and int(text) < 2**63


def _decode(decoder: msgspec.json.Decoder[Record], data: Any, where: str, place: int | None = None) -> Record:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # again, for the words
        return decode_json(decoder, data, where if place is None else f"{where} {place} (counted from 0)")
