"""What is in the files that W&B writes offline: read back, so that no row is lost and none is sent twice."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 1 << 15  # bytes of a block
SHOWN_AT = "evaluation/"  # what the names of tables and images begin with; they are no rows


def steps_on_disk(folder: Path, identity: str) -> set[int]:
    """The steps whose rows are in the offline parts of a W&B run; a killed part may lack its last ones."""
    found = set()
    for path in folder.glob(f"wandb/offline-run-*-{identity}/*.wandb"):
        for record in wandb_records(path):
            values = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            if "_step" in values and not any(name.startswith(SHOWN_AT) for name in values):
                found.add(int(values["_step"]))
    return found


def wandb_records(path: Path) -> Iterator[Any]:
    """What a W&B file holds: a log in LevelDB's layout (blocks of 32 KiB, records cut into parts) of protobufs.

    It ends where the writer was killed.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, joined = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = BLOCK - place % BLOCK
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        part = data[place + 7 : place + 7 + length]
        if kind not in (1, 2, 3, 4) or len(part) < length:
            return
        joined += part
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            try:
                yield Record.FromString(joined)
            except DecodeError:
                return
            joined = b""
