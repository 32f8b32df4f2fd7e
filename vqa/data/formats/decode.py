"""JSON files decoded straight into typed records, one at a time, with errors that name the file and the record.

A list of records is first cut into undecoded pieces (`msgspec.Raw`, views into the file's bytes) and each piece is
decoded when its turn comes. The four million answer records of VQA v2 therefore never exist all at once.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from vqa.errors import InputError
from vqa.files import read_bytes

Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]  # fits int64
Record = TypeVar("Record")


def decode_file(path: Path, type: type[Record]) -> Record:
    """Read JSON into `type`; raises InputError naming the file (and the wrong item) whatever is wrong with it."""
    return _decode(msgspec.json.Decoder(type), read_bytes(path), str(path))


def decode_records(pieces: Sequence[msgspec.Raw], type: type[Record], where: str) -> Iterator[Record]:
    """Decode undecoded pieces one by one; `where` ("FILE: question") begins the message about a bad one."""
    decoder = msgspec.json.Decoder(type)
    for place, piece in enumerate(pieces):
        yield _decode(decoder, piece, where, place)


def _decode(decoder: msgspec.json.Decoder[Record], data: Any, where: str, place: int | None = None) -> Record:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        item = where if place is None else f"{where} {place} (counted from 0)"
        if isinstance(error, msgspec.ValidationError):
            raise InputError(f"{item}: {error}") from None
        raise InputError(f"{item}: not valid JSON (truncated or damaged?): {error}") from None
