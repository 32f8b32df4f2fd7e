"""Columns of large data files kept as arrays, so that the second reading of a file takes a tenth of the first.

An entry is found by the SHA-256 of the file it was read from: it can never be stale, and a file that is moved or
linked elsewhere finds it again. Entries lie in `$VQA_CACHE`, else `~/.cache/vqa`, never beside the data; `VQA_CACHE=`
(empty) turns them off, and the folder may be deleted at any time. Files below 16 MiB take less than half a second and
are not kept. An entry is an uncompressed .npz without pickles; check sums tell a damaged one, which is made anew.
"""

import os
import zipfile
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import Strings
from vqa.errors import InputError
from vqa.files import atomic_write, sha256_file
from vqa.progress import errors

VERSION = 1  # of the entries; raise it when what a reader puts into them changes
SMALLEST = 16 << 20  # bytes


def cache_folder() -> Path | None:
    """Where entries lie, or None when they are turned off."""
    named = os.environ.get("VQA_CACHE")
    if named == "":
        return None
    try:
        return Path(named) if named else Path("~/.cache/vqa").expanduser()
    except RuntimeError:  # no HOME, and a user without an entry: a service, a container
        return None


def cached_columns(path: Path, kind: str, read: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What `read` returns for the file `path`, from the cache when its content was read before.

    Args:
        path: the file that `read` reads, and nothing else.
        kind: what the columns are, so that one file may have several entries.
        read: returns columns by name: NumPy arrays, `Strings`, text, or None (left out when it comes from the cache).

    Raises:
        InputError: as `read` does.
    """
    folder = cache_folder()
    if folder is None or not path.is_file() or path.stat().st_size < SMALLEST:
        return dict(read())
    before = _state(path)
    entry = folder / "columns" / f"{kind}-{VERSION}-{sha256_file(path)}.npz"
    columns = _load(entry)
    if columns is None:
        columns = dict(read())
        if _state(path) == before:  # else the entry would hold the content of another digest
            _store(entry, columns)
    return columns


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _store(entry: Path, columns: Mapping[str, Any]) -> None:
    arrays: dict[str, NDArray[Any]] = {}
    for name, value in columns.items():
        if isinstance(value, Strings):
            arrays[f"{name}.codes"] = value.codes
            arrays[f"{name}.ends"] = np.cumsum([0, *map(len, value.distinct)])
            arrays[f"{name}.distinct"] = _bytes("".join(value.distinct))
        elif isinstance(value, str):
            arrays[f"{name}.text"] = _bytes(value)
        elif value is not None:
            arrays[f"{name}.array"] = value
    try:
        with atomic_write(entry, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    except InputError as error:
        errors.print(f"note: {error}; the data are read in full each time")


def _load(entry: Path) -> dict[str, Any] | None:
    """The columns of an entry; None where there is none or it is damaged."""
    try:
        with np.load(entry, allow_pickle=False) as arrays:
            parts = {key: arrays[key] for key in arrays.files}
        columns: dict[str, Any] = {}
        for key, array in parts.items():
            name, _, part = key.rpartition(".")
            if part == "codes":
                text, ends = _text(parts[f"{name}.distinct"]), parts[f"{name}.ends"].tolist()
                columns[name] = Strings(tuple([text[start:end] for start, end in pairwise(ends)]), array)
            elif part == "text":
                columns[name] = _text(array)
            elif part == "array":
                columns[name] = array
        return columns
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        errors.print(f"note: {entry} is damaged ({error}); the data are read in full")
        return None


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8"), dtype=np.uint8)


def _text(array: NDArray[np.uint8]) -> str:
    return array.tobytes().decode("utf-8")
