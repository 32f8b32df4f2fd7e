"""Reading and writing files so that nothing is half-written and every error names its file."""

import codecs
import functools
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from vqa.errors import InputError, first_line, shortened
from vqa.locks import hold

COMMIT_SECONDS = 2.0  # what is written bit by bit is brought to the disk so often: a crash loses at most this much work
STANDARD_OUTPUT = Path("-")
LONGEST_NAME = 255  # bytes of a file's name, on the usual file systems
LARGEST_FILE = 16 << 30  # bytes that are read as a whole; the largest file of a published data set has 1.5 GB


# What an image that a user names may end in, and the format that it gets.
ATTENTION_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".pdf": "PDF"}
PLOT_FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}


def format_of(path: Path, formats: Mapping[str, str], what: str) -> str:
    """The format that a file's ending names; PNG for standard output, a pipe or a device.

    Args:
        formats: by ending.
        what: "a plot", for the message.

    Raises:
        InputError: the ending names none of them.
    """
    if path == STANDARD_OUTPUT or (path.exists() and not path.is_file() and not path.is_dir()):
        return formats[".png"]
    if (found := formats.get(path.suffix.lower())) is None:
        raise InputError(f"{path}: {what} ends in {', '.join(formats)}")
    return found


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that takes its name when the block ends without an error.

    A reader sees the old file or the whole new one, never a part, whatever happens in between. A file keeps its
    permissions, a new one gets those of the umask. A link stays, and what it leads to is written; a pipe or a device
    is written to as it is; `-` is standard output.

    Args:
        path: the file.
        mode: "w", text in UTF-8, or "wb", or "w+b".

    Raises:
        InputError: naming `path`, when nothing can be written there or the disk is full; what was there is kept.
    """
    if path == STANDARD_OUTPUT:
        yield sys.stdout.buffer if "b" in mode else sys.stdout
        sys.stdout.flush()
        return
    with _naming(path):
        found = _status(path)
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise InputError(f"{path}: is a folder, so no file can be written there")
        target, part = Path(os.path.realpath(path)) if path.is_symlink() else path, None
        if (own := own_output(found)) is not None:  # /dev/stdout that goes to a file
            raw = _Watched(os.dup(own), "w")
        elif found is None or stat.S_ISREG(found.st_mode):
            target.parent.mkdir(parents=True, exist_ok=True)
            part, raw = _open_part(target)
        else:
            raw = _Watched(path, "w")
    try:
        with _opened(raw, mode) as file:
            yield file
            file.flush()
            if part is not None:
                with _naming(path):
                    os.fsync(raw.fileno())
                    if found is not None:
                        os.fchmod(raw.fileno(), stat.S_IMODE(found.st_mode))
                    part.replace(target)
    except BaseException:
        if part is not None:
            part.unlink(missing_ok=True)
        if raw.failure is not None:  # whatever a library made of it
            raise InputError(f"{path}: cannot be written: {raw.failure.strerror}{KEPT * (part is not None)}") from None
        raise


KEPT = "; what was there before is kept"


class _Watched(io.FileIO):
    """A file that remembers why a write failed: some libraries, torch's for one, raise something else instead."""

    failure: OSError | None = None

    def write(self, data: Any) -> Any:
        """As FileIO's."""
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


def _opened(raw: io.FileIO, mode: str) -> IO[Any]:
    if "b" in mode:
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", newline="\n")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An operating system's error inside the block, or a NUL in a name, as InputError that names `path`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{shortened(str(path))}: cannot be written: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{shortened(str(path))}: cannot be written: {error}") from None


def own_output(found: os.stat_result | None) -> int | None:
    """Standard output or error, where a file is the one that it goes to."""
    for descriptor in (1, 2):
        try:
            if found is not None and stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.fstat(descriptor)):
                return descriptor
        except OSError:
            continue  # it is closed
    return None


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


# Beside what they become, and held by the process that writes them; versions before 0.2 chose eight characters.
_PART = re.compile(r"\..*\.([0-9a-f]{16}|[a-z0-9_]{8})\.part", re.DOTALL)


def _open_part(target: Path) -> tuple[Path, _Watched]:
    """A new file beside `target`, held against `sweep`."""
    sweep(target.parent, target.name)
    while True:
        part = target.with_name(f"{_part_prefix(target.name)}{secrets.token_hex(8)}.part")
        raw = _Watched(part, "x+")
        if hold(raw.fileno()) is not False and os.fstat(raw.fileno()).st_nlink:
            return part, raw
        raw.close()  # another process swept it before it was held


def _part_prefix(name: str) -> str:
    room = LONGEST_NAME - len("..") - 16 - len(".part")
    return f".{os.fsdecode(os.fsencode(name)[:room])}."


def sweep(folder: Path, name: str = "") -> None:
    """Remove what killed writers have left in a folder: files and folders that no process holds.

    Args:
        folder: its own files alone, not those of folders in it.
        name: only what was to become this file or folder.
    """
    prefix = _part_prefix(name) if name else "."
    try:
        left = [entry for entry in os.scandir(folder) if entry.name.startswith(prefix) and _PART.fullmatch(entry.name)]
    except OSError:
        return
    for entry in left:
        try:
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue  # it was renamed or removed just now
        try:
            if not hold(descriptor):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)
        finally:
            os.close(descriptor)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Make a folder whole: the block fills a hidden one beside `path`, which takes its name at the end.

    Raises:
        InputError: naming `path`, when it cannot be made, or is there by then and not empty.
    """
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, path.name)
        part = path.with_name(f"{_part_prefix(path.name)}{secrets.token_hex(8)}.part")
        part.mkdir()
        descriptor = os.open(part, os.O_RDONLY)
    hold(descriptor)
    try:
        yield part
        with _naming(path):
            part.replace(path)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError):
            raise InputError(f"{path}: cannot be made: {error.strerror or error}") from None
        raise
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, as `atomic_write` does."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading; of a pipe or device, which might never end, nothing is read.

    Raises:
        InputError: naming the file, when it is missing, no regular file, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError(f"{shortened(str(path))}: no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{shortened(str(path))}: cannot be read: {reason}") from None
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
    raise InputError(f"{path}: cannot be read: it is {kind}, not a file")


def read_bytes(path: Path, most: int = LARGEST_FILE) -> bytes:
    """Read a whole regular file.

    Raises:
        InputError: naming the file, when it is missing, no regular file, larger than `most` bytes, or cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise InputError(f"{path}: has {size:,} bytes; at most {most:,} are read")
        try:
            return file.read()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        except MemoryError:
            raise InputError(f"{path}: has {size:,} bytes, more than there is memory for") from None


BYTE_ORDER_MARKS = (  # the longer first: that of UTF-32 begins as one of UTF-16
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def encoding_of(content: bytes) -> str:
    """What a text is written in, by its byte order mark: "UTF-32", "UTF-16", or "UTF-8" with or without one."""
    return next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), "UTF-8")


def utf8(content: bytes, name: str) -> bytes:
    """A text's bytes as UTF-8 without a byte order mark, itself where it is so already.

    UTF-16 and UTF-32 are known by their marks. Bytes without one are not looked at: their reader says what is wrong.

    Raises:
        InputError: beginning with `name`, when the text is not what its mark says.
    """
    encoding = encoding_of(content)
    if encoding == "UTF-8":
        return content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode(encoding).encode("utf-8")
    except UnicodeError as error:
        reason = getattr(error, "reason", error)
        raise InputError(f"{name}: begins as {encoding} but is not ({reason}); save it as UTF-8") from None


def read_json(path: Path, type: Any = Any) -> Any:
    """Read JSON checked against a msgspec `type`; raises InputError naming the file and the wrong item."""
    return decode_json(msgspec.json.Decoder(type), utf8(read_bytes(path), str(path)), str(path))


def decode_json(decoder: "msgspec.json.Decoder[Any]", content: bytes, name: str) -> Any:
    """What a decoder makes of JSON; raises InputError that begins with `name` and says what is wrong."""
    try:
        return decoder.decode(content)
    except msgspec.ValidationError as error:
        raise InputError(f"{name}: {shortened(first_line(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: not valid JSON (truncated or damaged?): {shortened(first_line(error))}") from None
    except RecursionError:
        raise InputError(f"{name}: not valid JSON: nested too deep") from None


def sha256_file(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits; raises InputError when it cannot be read."""
    with open_regular(path) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def sha256_unless_read(path: Path) -> str:
    """As `sha256_file`, but a file that is the same by number, size and time is not read a second time."""
    try:
        found = path.stat()
    except OSError:
        return sha256_file(path)  # says what is wrong
    return _sha256_of(path, found.st_ino, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _sha256_of(path: Path, *_: int) -> str:
    return sha256_file(path)
