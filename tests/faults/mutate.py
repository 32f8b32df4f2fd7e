"""Damage, generated: every value of a document replaced by what it should not be, and every file by what is no file."""

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DEEP = 100_000
WRONG_VALUES: dict[str, Any] = {
    "null": None,
    "text": "x",
    "number": 5,
    "negative": -1,
    "list": [],
    "mapping": {},
    "true": True,
    "infinity": float("inf"),
    "nan": float("nan"),
    "huge": 10**30,
    "fraction": 0.5,
    "nested": [[[[{}]]]],
    "long text": "y" * 100_000,
    "escape": "\x1b[2Jz[/b][red]",
}
DROPPED = "dropped"


def places(value: Any, most_items: int = 1) -> Iterator[tuple[Any, ...]]:
    """Every place in nested mappings and lists, outermost first; of a list only its first items."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value[:most_items]))
    for key, _ in items:
        yield (key,)
    for key, inner in items:
        for place in places(inner, most_items):
            yield (key, *place)


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """A copy with a new value at a place; with `DROPPED` without it."""
    result = copy.deepcopy(value)
    inner = result
    for key in place[:-1]:
        inner = inner[key]
    if new is DROPPED:
        del inner[place[-1]]
    else:
        inner[place[-1]] = new
    return result


def damaged(value: Any, each: int, shift: int = 0) -> Iterator[tuple[str, Any]]:
    """Copies of a document, each with one place dropped or replaced by so many of the wrong values in turn, named."""
    names = list(WRONG_VALUES)
    for number, place in enumerate(places(value)):
        where = ".".join(map(str, place))
        yield f"{where} dropped", changed(value, place, DROPPED)
        for step in range(each):
            name = names[(number * 3 + step * 5 + shift) % len(names)]
            yield f"{where} is {name}", changed(value, place, WRONG_VALUES[name])


def as_json(value: Any) -> bytes:
    """JSON as Python writes it, infinities and NaN included."""
    return json.dumps(value).encode()


def replace_by(path: Path, kind: str) -> None:
    """Put something else in the place of a file."""
    content = path.read_bytes() if path.is_file() else b""
    path.unlink(missing_ok=True)
    UNFILES[kind](path, content)


UNFILES: dict[str, Callable[[Path, bytes], object]] = {
    "missing": lambda path, content: None,
    "empty": lambda path, content: path.write_bytes(b""),
    "half": lambda path, content: path.write_bytes(content[: len(content) // 2]),
    "first byte": lambda path, content: path.write_bytes(content[:1]),
    "zeros": lambda path, content: path.write_bytes(bytes(max(len(content), 100))),
    "noise": lambda path, content: path.write_bytes(bytes((i * 7919 + 13) % 251 for i in range(2000))),
    "flipped bytes": lambda path, content: path.write_bytes(
        bytes(byte ^ 0xFF if place % 97 == 5 else byte for place, byte in enumerate(content))
    ),
    "utf-16": lambda path, content: path.write_bytes(content.decode("utf-8", "replace").encode("utf-16")),
    "latin-1": lambda path, content: path.write_bytes("é".encode("latin-1") + content),
    "byte order mark": lambda path, content: path.write_bytes(b"\xef\xbb\xbf" + content),
    "deep lists": lambda path, content: path.write_bytes(b"[" * DEEP + b"]" * DEEP),
    "deep mappings": lambda path, content: path.write_bytes(b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    "folder": lambda path, content: path.mkdir(),
    "fifo": lambda path, content: os.mkfifo(path),
    "/dev/zero": lambda path, content: path.symlink_to("/dev/zero"),
    "/dev/full": lambda path, content: path.symlink_to("/dev/full"),
    "socket": lambda path, content: _socket(path),
    "link to itself": lambda path, content: path.symlink_to(path.name),
    "broken link": lambda path, content: path.symlink_to("nowhere"),
}


def _socket(path: Path) -> None:
    import socket

    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)
