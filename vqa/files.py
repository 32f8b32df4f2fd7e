"""Reading and writing files so that nothing is half-written and every error names its file."""

import errno
import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from vqa.errors import InputError

COMMIT_SECONDS = 2.0  # what is written bit by bit is brought to the disk so often: a crash loses at most this much work


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that takes its name when the block ends without an error.

    A reader sees the old file or the whole new one, never a part, whatever happens in between.

    Raises:
        InputError: naming `path`, when nothing can be written there or the disk is full.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, so no file can be written there")
    encoding = None if "b" in mode else "utf-8"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"{path}: cannot be written: {error.strerror}; what was there before is kept") from None
        raise


def try_lock(descriptor: int, path: Path, *, wait: bool = False, shared: bool = False) -> bool:
    """Lock an open file for this process until it is closed.

    Args:
        descriptor: of the open file.
        path: its name, for messages.
        wait: until no other process holds it.
        shared: beside other processes that hold it so too.

    Returns:
        Whether it is locked: without `wait` False where another process holds it.

    Raises:
        InputError: the file system cannot lock files.
    """
    import fcntl  # not on Windows, where the package is still imported, to say which systems it runs on

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        raise InputError(f"{path}: this file system cannot lock files: {error.strerror}; choose another disk") from None
    return True


@contextmanager
def lock(path: Path, *, busy: str | None = None, required: bool = True) -> Iterator[None]:
    """Keep other processes out of the same block meanwhile, by a lock on a file that is made where it is not there.

    Args:
        path: the file; it stays empty and is not removed.
        busy: the message when another process is in there; None waits until it has left.
        required: whether a file system that cannot lock is an error, or the block is entered all the same.

    Raises:
        InputError: another process is in there, or the file cannot be made or locked.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    with file:
        try:
            entered = try_lock(file.fileno(), path, wait=busy is None)
        except InputError:
            if required:
                raise
            entered = True
        if not entered:
            raise InputError(busy)
        yield


def remove_parts(path: Path) -> None:
    """Remove what killed writers of `path` have left; only where no other process writes it now."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        left.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def read_bytes(path: Path) -> bytes:
    """Read a whole file; raises InputError that names it when it is missing or cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def read_json(path: Path, type: Any = Any) -> Any:
    """Read JSON checked against a msgspec `type`; raises InputError naming the file and the wrong item."""
    try:
        return msgspec.json.decode(read_bytes(path), type=type)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON (truncated or damaged?): {error}") from None


def sha256_file(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits; raises InputError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
