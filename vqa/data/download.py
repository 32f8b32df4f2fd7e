"""Fetch a published data set: resumed, verified, unpacked safely, and only what is not there yet.

pooch decides whether a file is whole and checks its checksum; this module gives it a transfer that resumes. What was
unpacked is written down in `.downloads.json` beside it, so the archives themselves need not be kept.
"""

import errno
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import msgspec
from rich.progress import Progress

from vqa.data.addresses import DOWNLOADS, TEXT_RATIO, Archive
from vqa.data.formats.decode import decode_file
from vqa.errors import InputError, unknown_name
from vqa.files import sha256_file, write_json
from vqa.progress import console, progress_bar

RECORD = ".downloads.json"
PIECE = 1 << 16  # bytes read at once; what a broken connection loses at most
TIMEOUT = 60  # seconds without a byte
ASKING = 10  # seconds to wait for a size
PLAIN = {"Accept-Encoding": "identity"}
Member = TypeVar("Member")


class NoRoomError(InputError):
    """The disk is too small for what an archive holds."""


class ArchiveFiles(msgspec.Struct):
    """What one archive left behind: its files by path from the folder, with their sizes in bytes."""

    sha256: str
    files: dict[str, int]


def download(
    name: str,
    out: Path,
    *,
    downloads: Mapping[str, tuple[Archive, ...]] = DOWNLOADS,
    attempts: int = 6,
    wait: float = 2.0,
) -> list[Path]:
    """Fetch and unpack all files of a data set into a folder, and return the files' paths.

    Args:
        name: a name in `downloads`.
        out: the folder; made if need be.
        downloads: the table of addresses.
        attempts: how often a broken transfer is taken up again at each address.
        wait: seconds before the second attempt, doubled each time.

    Raises:
        InputError: for an unknown name, too little disk, an address that does not answer, a wrong size or checksum,
            and an archive that is damaged or would write outside `out`.
    """
    if name not in downloads:
        raise InputError(unknown_name("download", name, downloads))
    out.mkdir(parents=True, exist_ok=True)
    record = _read_record(out)
    todo = [archive for archive in downloads[name] if not _is_whole(out, record.get(archive.name))]
    console.print(cost(name, [_sized(archive) for archive in todo], out))
    for archive in todo:
        path = _fetch(archive, out, attempts, wait)
        record[archive.name] = ArchiveFiles(sha256_file(path), _unpack(path, out))
        write_json(out / RECORD, msgspec.to_builtins(record))
    return [out / file for archive in downloads[name] for file in record[archive.name].files]


def _sized(archive: Archive) -> Archive:
    """The archive with the size that its server states, where none is published; only to say what it will cost."""
    import requests

    if archive.bytes is not None:
        return archive
    try:
        with requests.head(archive.urls[0], headers=PLAIN, timeout=ASKING, allow_redirects=True) as answer:
            length = answer.headers.get("Content-Length", "") if answer.ok else ""
    except OSError:  # as requests' errors are; the transfer will say what is wrong
        length = ""
    return archive._replace(bytes=int(length) if length.isdecimal() and int(length) else None)


def cost(name: str, todo: list[Archive], out: Path) -> str:
    """What fetching will take, in words; raises InputError when the disk is too small for it."""
    if not todo:
        return f"{name}: all files are in {out}"
    transfer = sum(archive.bytes or 0 for archive in todo)
    disk = sum((archive.bytes or 0) * (2 if archive.images else 1 + TEXT_RATIO) for archive in todo)
    unknown = sum(archive.bytes is None for archive in todo)
    free = shutil.disk_usage(out).free
    files = f"{len(todo)} file{'s' if len(todo) > 1 else ''}"
    if unknown == len(todo):
        words = f"{name}: {files} to fetch; how large is neither published nor said by the server"
    else:
        words = f"{name}: {files}, {size_words(transfer)} to fetch, about {size_words(disk)} of disk while unpacking"
        words += f" ({unknown} files of unknown size not counted)" if unknown else ""
    words += f"; {size_words(free)} are free in {out}"
    if disk > free:
        raise InputError(f"{words}: too little")
    return words


def size_words(count: int) -> str:
    """A number of bytes as people say it.

    >>> size_words(6_900_000_000)
    '6 GB'
    """
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count //= 1000
    return f"{count:,} GB"


def _read_record(out: Path) -> dict[str, ArchiveFiles]:
    path = out / RECORD
    return decode_file(path, dict[str, ArchiveFiles]) if path.is_file() else {}


def _is_whole(out: Path, fetched: ArchiveFiles | None) -> bool:
    """Whether every file that an archive left is still there in its size."""
    if fetched is None:
        return False
    files = ((out / name, size) for name, size in fetched.files.items())
    return all(path.is_file() and path.stat().st_size == size for path, size in files)


def _fetch(archive: Archive, out: Path, attempts: int, wait: float) -> Path:
    """Fetch one file from the first address that gives it whole."""
    import pooch  # type: ignore[import-untyped]

    pooch.get_logger().setLevel("WARNING")
    faults = []
    for url in archive.urls:
        transfer = _Transfer(out / f".{archive.name}.part", archive.bytes, attempts, wait)
        try:
            path = Path(pooch.retrieve(url, archive.checksum, archive.name, out, downloader=transfer))
            _check_beginning(path, archive.sha256_begins)
            return path
        except (
            OSError,
            ValueError,
        ) as error:  # requests' errors are OSErrors; pooch says a wrong checksum by ValueError
            faults.append(f"{url}: {error}")
    raise InputError("\n".join(faults))


def _check_beginning(path: Path, begins: str) -> None:
    """Remove a file whose SHA-256 does not begin so, and raise ValueError, as pooch does for a whole checksum."""
    digest = sha256_file(path) if begins else ""
    if not digest.startswith(begins):
        path.unlink()
        raise ValueError(f"its SHA-256 begins with {digest[: len(begins)]}, not with the published {begins}")


class _Transfer:
    """A pooch downloader that keeps what it has when a connection breaks, and goes on from there."""

    def __init__(self, part: Path, size: int | None, attempts: int, wait: float) -> None:
        self.part, self.size, self.attempts, self.wait = part, size, attempts, wait

    def __call__(self, url: str, output_file: str, _: Any) -> None:
        import requests

        with progress_bar() as bar:
            task = bar.add_task(url.rpartition("/")[2], total=self.size, note="")
            for attempt in range(self.attempts):
                try:
                    self._go_on(url, lambda done, total: bar.update(task, completed=done, total=total))
                    break
                except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                    if attempt + 1 == self.attempts:
                        what = "broke off" if self.part.is_file() else "was not reached"
                        raise OSError(f"{what} {self.attempts} times, {error}; run again to go on") from error
                    bar.update(task, note=f"broke off, attempt {attempt + 2} of {self.attempts}")
                    time.sleep(self.wait * 2**attempt)
        got = self.part.stat().st_size
        if self.size is not None and got != self.size:
            self.part.unlink()
            raise ValueError(f"has {got:,} bytes, not the published {self.size:,}")
        shutil.move(self.part, output_file)

    def _go_on(self, url: str, report: Callable[[int, int | None], None]) -> None:
        """Fetch the bytes that are not there yet; raises requests' errors."""
        import requests

        have = self.part.stat().st_size if self.part.is_file() else 0
        headers = PLAIN | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                if answer.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
                    return  # all of it was there already
                self.part.unlink()
                raise requests.ConnectionError("the part that was kept does not fit the file")
            answer.raise_for_status()
            if answer.status_code != requests.codes.partial_content:
                have = 0  # the server sends the whole file again
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length and length.isdecimal() else None
            with self.part.open("ab" if have else "wb") as file:
                for piece in answer.iter_content(PIECE):
                    file.write(piece)
                    have += len(piece)
                    report(have, total)
        if total is not None and have < total:
            raise requests.ConnectionError(f"{have:,} of {total:,} bytes came")


def _unpack(path: Path, out: Path) -> dict[str, int]:
    """Unpack an archive into `out`, remove it, and return its files; a file that is no archive stays.

    An archive that is refused is removed too, so that the next call does not find it again.

    Raises:
        InputError: it is damaged or not to be trusted.
        NoRoomError: the disk is full; the archive stays.
    """
    if path.suffix not in (".zip", ".tar"):
        return {path.name: path.stat().st_size}
    again = "it was removed, run again to fetch it anew"
    try:
        with progress_bar() as bar:
            files = _unzip(path, out, bar) if path.suffix == ".zip" else _untar(path, out, bar)
    except NoRoomError:
        raise  # the archive is good, and waits for room
    except InputError as error:
        path.unlink()
        raise InputError(f"{error}; {again}") from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        path.unlink()
        raise InputError(f"{path}: a damaged archive ({error}); {again}") from None
    except (OSError, RuntimeError) as error:  # names that cannot be files here; encrypted or unknown zips
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoomError(f"{path}: cannot be unpacked into {out}: {error}; make room and run again") from None
        path.unlink()
        raise InputError(f"{path}: cannot be unpacked into {out}: {error}; {again}") from None
    path.unlink()
    return files


def _unzip(path: Path, out: Path, bar: Progress) -> dict[str, int]:
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        for member in members:
            _check_member(path, member.filename, out)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise InputError(f"{path}: {member.filename!r} is a link; the archive is not to be trusted")
        _check_room(path, sum(member.file_size for member in members), out)
        for member in _progress(members, path, bar):
            archive.extract(member, out)
    return {member.filename: member.file_size for member in members}


def _untar(path: Path, out: Path, bar: Progress) -> dict[str, int]:
    with tarfile.open(path) as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
        for member in members:
            _check_member(path, member.name, out)
            if not member.isreg():
                raise InputError(f"{path}: {member.name!r} is no ordinary file; the archive is not to be trusted")
        _check_room(path, sum(member.size for member in members), out)
        for member in _progress(members, path, bar):
            archive.extract(member, out, filter="data")
    return {member.name: member.size for member in members}


def _progress(members: list[Member], path: Path, bar: Progress) -> Iterator[Member]:
    task = bar.add_task(f"unpacking {path.name}", total=len(members), note="")
    for member in members:
        yield member
        bar.advance(task)


def _check_member(path: Path, name: str, out: Path) -> None:
    """Raises InputError for a name that leaves the folder, hides in it, or would replace our record."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    outside = not parts or parts[0] == "/" or ".." in parts or ":" in parts[0]
    if outside or not (out / name).resolve().is_relative_to(out.resolve()) or parts == (RECORD,):
        raise InputError(f"{path}: {name!r} would be written outside {out}; the archive is not to be trusted")


def _check_room(path: Path, size: int, out: Path) -> None:
    free = shutil.disk_usage(out).free
    if size > free:
        raise NoRoomError(f"{path}: takes {size_words(size)} unpacked, but {size_words(free)} are free in {out}")
