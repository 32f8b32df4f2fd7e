"""Images that stand in the table itself: each is written once, by its digest, into a folder beside the table."""

import base64
import binascii
import hashlib
import re
from pathlib import Path

from vqa.data.formats.table.cells import Cell, text_in
from vqa.errors import quoted
from vqa.files import atomic_write
from vqa.progress import console

FOLDER = "unpacked_images"
BEGINNINGS = (  # of files of images, and what such a file ends in
    (re.compile(rb"\x89PNG\r\n\x1a\n"), ".png"),
    (re.compile(rb"\xff\xd8\xff"), ".jpg"),
    (re.compile(rb"GIF8[79]a"), ".gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), ".webp"),
    (re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL), ".bmp"),
    (re.compile(rb"II\*\0|MM\0\*"), ".tif"),
)
DATA_URI = re.compile(r"data:[\w/.+-]*(?:;[\w=.-]+)*;base64,", re.IGNORECASE)
SHORTEST = 64  # letters of an image in base64; what is shorter is a path, whatever it looks like
BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")


class Unpacked:
    """Writes the images of one table; one that is there already is not written again."""

    def __init__(self, table: Path) -> None:
        self._table = table
        self._names: set[str] = set()
        self._said = False

    def name_of(self, cell: Cell) -> str | None:
        """The image of a cell, by its path from the table's folder; None where there is none.

        Raises:
            ValueError: the cell is neither a path nor an image.
            InputError: its file cannot be written.
        """
        if isinstance(cell, list) and len(cell) == 1:
            cell = cell[0]
        if isinstance(cell, dict) and not {"bytes", "path"}.isdisjoint(cell):
            content, path = cell.get("bytes"), cell.get("path")
            cell = path if content is None else content
            if isinstance(cell, str) and cell is not path:
                return self._write(_decoded(cell))
        if isinstance(cell, bytes):
            return self._write(cell) if cell else None
        if isinstance(cell, str):
            uri = DATA_URI.match(cell.lstrip())
            if uri:
                return self._write(_decoded(cell.lstrip()[uri.end() :]))
            if (
                len(cell) >= SHORTEST
                and BASE64.fullmatch(cell)
                and _ending(_decoded("".join(cell[: 2 * SHORTEST].split())[: SHORTEST // 2]))
            ):
                return self._write(_decoded(cell))
        return text_in(cell)

    def _write(self, content: bytes) -> str:
        ending = _ending(content)
        if not ending:
            raise ValueError(f"holds {len(content):,} bytes that are no image; they begin {content[:8]!r}")
        name = f"{FOLDER}/{hashlib.sha256(content).hexdigest()}{ending}"
        path = self._table.parent / name
        if name not in self._names:
            self._names.add(name)
            if not path.is_file():
                if not self._said:
                    console.print(f"{self._table}: its images are unpacked into {path.parent}")
                    self._said = True
                with atomic_write(path, "wb") as file:
                    file.write(content)
        return name

    def notes(self) -> list[str]:
        """Where the images are."""
        folder = self._table.parent / FOLDER
        return [f"its images stand in the table itself; they are unpacked into {folder}"] if self._names else []


def _ending(content: bytes) -> str:
    """What a file with this content ends in; "" where it is no image."""
    return next((ending for pattern, ending in BEGINNINGS if pattern.match(content)), "")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(
            f"holds what begins as an image in base64 and is none ({error}): {quoted(text[:40])}"
        ) from None
