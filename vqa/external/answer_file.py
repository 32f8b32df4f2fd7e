"""The answers of an external model, kept as they come: one JSON line a question, lost by no crash.

The first line says what the answers belong to; a file of another model, prompt, split or setting has another name, so
nothing is mixed or written over. Batches are a function of the split and the settings alone: a run that was killed goes
on at the first batch that is not whole and ends with the same file, byte for byte.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from vqa.errors import InputError
from vqa.files import COMMIT_SECONDS
from vqa.locks import acquire


class Line(msgspec.Struct, gc=False):
    """One answer."""

    question_id: int
    answer: str
    probability: float
    choice: str | None = None


class AnswerFile:
    """Lines that are appended and, every two seconds, brought to the disk."""

    def __init__(self, path: Path, belongs_to: Mapping[str, Any]) -> None:
        """Open or begin the file; raises InputError when it belongs to something else or cannot be written."""
        self.path, self.lines = path, list[Line]()
        self._head = json.dumps(belongs_to, sort_keys=True, ensure_ascii=False).encode() + b"\n"
        self._waiting: list[bytes] = []
        self._committed = time.monotonic()
        held = acquire(path)
        if held is None:
            raise InputError(f"{path}: another process is asking the same; wait for it or stop it")
        self._lock, self._file = held, path.open("r+b")
        self._read()

    def _read(self) -> None:
        """Take the whole lines that are there."""
        *whole, _ = self._file.read().split(b"\n")  # what follows the last line end was being written
        if not whole:
            self._file.seek(0)
            self._file.truncate()
            self._file.write(self._head)
            self.commit()
            return
        if whole[0] + b"\n" != self._head:
            raise InputError(f"{self.path}: holds the answers of another run; move it away")
        for number, line in enumerate(whole[1:], start=2):
            try:
                self.lines.append(msgspec.json.decode(line, type=Line))
            except msgspec.DecodeError as error:
                raise InputError(f"{self.path}: line {number} is damaged: {error}; remove what follows it") from None

    def keep(self, count: int) -> None:
        """Keep the first `count` answers and drop the others, before anything is appended."""
        self.lines = self.lines[:count]
        self._file.seek(len(self._head) + sum(len(msgspec.json.encode(line)) + 1 for line in self.lines))
        self._file.truncate()

    def append(self, lines: Sequence[Line]) -> None:
        """Add answers; they are on the disk `COMMIT_SECONDS` later, or when the file is closed."""
        self.lines += lines
        self._waiting += [msgspec.json.encode(line) + b"\n" for line in lines]
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Bring what waits to the disk."""
        try:
            self._file.write(b"".join(self._waiting))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from None
        self._waiting, self._committed = [], time.monotonic()

    def __enter__(self) -> "AnswerFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.commit()
        finally:
            self._file.close()
            self._lock.release()
