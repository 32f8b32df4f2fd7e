"""`get`: a data set of the hub as an ordinary folder, made piece by piece; a call goes on where one was stopped.

A piece is a row group of a parquet file, or a stretch of another. Its images are written first, each under its digest,
then its rows, in one file that takes its name when it is whole. When all pieces are there they become one table a
split: a call that was killed anywhere loses at most one piece, and nothing is there twice.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from vqa import locks
from vqa.data.download import NoRoomError, size_words
from vqa.data.formats.decode import decode_file
from vqa.data.hub.images import ImageStore
from vqa.data.hub.repository import IMAGES, INSTRUCTIONS, Address, Repository, cache_folder, fetch, is_fetched, look_up
from vqa.data.hub.rows import Columns, our_row
from vqa.data.hub.sources import Row, Table, require_pyarrow
from vqa.errors import BusyError, InputError
from vqa.files import atomic_write, sweep, write_json
from vqa.progress import console, progress_bar

RECORD, PIECES = ".hub.json", ".hub"
IDS = ("id", "question_id")


class Record(msgspec.Struct):
    """What a folder was made from; `tables` is empty until it is whole."""

    repository: str
    configuration: str
    revision: str
    tables: dict[str, int] = {}


@dataclass(frozen=True)
class GetReport:
    """What is there now: questions by split, images, and what was left out, a sentence each."""

    questions: Mapping[str, int]
    images: int
    notes: tuple[str, ...]


def get(address: str, out: Path) -> GetReport:
    """Fetch a data set of the hub and make the folder `out` of it; goes on where an earlier call stopped.

    Args:
        address: "hub:OWNER/NAME" or "hub:OWNER/NAME:CONFIGURATION".
        out: the folder; made if need be.

    Raises:
        InputError: there is no such data set or configuration, the hub does not answer, a file is damaged or has no
            columns of questions and images, or `out` holds something else.
        NoRoomError: the disk is too small.
    """
    wanted = Address.of(address)
    out.mkdir(parents=True, exist_ok=True)
    lock = locks.acquire(out / f"{RECORD}.lock")
    if lock is None:
        raise BusyError(f"{out}: another process is making this data set")
    try:
        return _Getting(wanted, out).run()
    finally:
        lock.release()


@dataclass
class _Getting:
    """One call of `get`."""

    wanted: Address
    out: Path
    noted: Counter[str] = field(default_factory=Counter)

    def run(self) -> GetReport:
        record = self._record()
        if record is not None and record.tables:
            console.print(f"{self.wanted.repository}: all of it is in {self.out}")
            self._tidy()
            return self._report(record)
        repository = look_up(self.wanted.repository, record.revision if record else None)
        if record is None:
            record = Record(repository.name, repository.choose(self.wanted.configuration), repository.revision)
        chosen = record.configuration
        splits, images = _files_of(repository, chosen)
        files = [*(file for some in splits.values() for file in some), *images]
        if any(file.endswith(".parquet") for file in files):
            require_pyarrow()
        archives = [] if images or files[0].endswith(".parquet") else _archives(repository)
        self._require_room(repository, [*files, *archives])
        write_json(self.out / RECORD, msgspec.to_builtins(record))
        path_of = self._all_images(repository, images) if images else None
        source = ImageStore(self.out, path_of, [fetch(repository, file) for file in archives])
        for split, some in splits.items():
            pieces = [piece for file in some for piece in self._pieces(repository, file, split, source)]
            record.tables[split] = self._join(split, pieces)
        write_json(self.out / RECORD, msgspec.to_builtins(record))
        self._tidy()
        return self._report(record)

    def _record(self) -> Record | None:
        path = self.out / RECORD
        if path.is_file():
            record: Record = decode_file(path, Record)
            same = record.repository == self.wanted.repository
            if not same or self.wanted.configuration not in ("", record.configuration):
                raise InputError(f"{self.out}: holds {record.repository}:{record.configuration}; choose another folder")
            return record
        if any(not entry.name.startswith(".hub") for entry in self.out.iterdir()):
            raise InputError(f"{self.out}: holds something else; choose an empty folder")
        return None

    def _require_room(self, repository: Repository, files: Sequence[str]) -> None:
        """Say what it takes; images repeat, so what is unpacked takes at most what is fetched."""
        sizes = {file: repository.sizes.get(file, 0) for file in files}
        todo = sum(size for file, size in sizes.items() if not is_fetched(repository, file))
        there = sum(path.stat().st_size for path in (self.out / "images").glob("*/*"))
        need, cache = max(0, sum(sizes.values()) - there), _there(cache_folder())
        free, cache_free = shutil.disk_usage(self.out).free, shutil.disk_usage(cache).free
        count = f"{len(files)} file{'s' if len(files) > 1 else ''}"
        words = f"{repository.name}: {count}, {size_words(todo)} to fetch into {cache_folder()}"
        console.print(f"{words}; at most {size_words(need)} more in {self.out}, where {size_words(free)} are free")
        together = cache.stat().st_dev == self.out.stat().st_dev
        if need + todo * together > free or todo > cache_free:
            raise NoRoomError(f"{words}, and {size_words(need)} more in {self.out}: too little room")

    def _all_images(self, repository: Repository, files: Sequence[str]) -> dict[str, str]:
        """The images of a configuration that holds nothing else: the path of each by its id."""
        source = ImageStore(self.out)
        path_of: dict[str, str] = {}
        for file in files:
            for piece in self._pieces(repository, file, "", source):
                for row in _lines(piece):
                    path_of[row["id"]] = row["image"]
        return path_of

    def _pieces(self, repository: Repository, file: str, split: str, source: ImageStore) -> Iterator[Path]:
        """The pieces of one file, made unless they are there."""
        table = Table(fetch(repository, file), file)
        columns = Columns.recognise(table.names)
        self._check_columns(file, columns, table.names, split)
        if self.noted[columns.words] == 0:
            console.print(columns.words)
        self.noted[columns.words] += 1
        stem = file.replace("/", "+")
        with progress_bar() as bar:
            task = bar.add_task(PurePosixPath(file).name, total=sum(table.counts), note="")
            for number, count in enumerate(table.counts):
                path = self.out / PIECES / f"{stem}-{number:05}.jsonl"
                if not path.is_file():
                    rows = [*self._rows(table, number, columns, split, source)]
                    with atomic_write(path, "wb") as written:
                        written.write(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
                bar.update(task, advance=count)
                yield path

    def _rows(self, table: Table, number: int, columns: Columns, split: str, source: ImageStore) -> Iterator[Row]:
        for place, row in enumerate(table.piece(number, columns.read)):
            where = f"{table.name}: row {place} of piece {number}"
            path = source.path(row, columns, where)
            if split:
                yield our_row(row, columns, path, where)
            else:
                yield {"id": str(row[columns.of["id"]]), "image": path}

    def _check_columns(self, file: str, columns: Columns, names: Sequence[str], split: str) -> None:
        needed = ["question"] if split else ["image", "id"]
        lacking = [name for name in needed if name not in columns.of]
        if split and not {"image", "image_key"} & set(columns.of):
            lacking.append("image")
        if lacking:
            raise InputError(f"{file}: has no column for {' or '.join(lacking)}; it has {', '.join(names)}")

    def _join(self, split: str, pieces: Sequence[Path]) -> int:
        """One table of a split's pieces; returns how many questions it has.

        Where only some questions have answers, those without are left out and counted.
        """
        answered = Counter("answers" in row for piece in pieces for row in _lines(piece))
        only_answered = bool(answered[True] and answered[False])
        if only_answered:
            self.noted[f"{split}: {answered[False]:,} questions have no answer and are left out"] = 1
        id_column = self._id_column(split, pieces)
        with atomic_write(self.out / f"{split}.jsonl", "wb") as file:
            for row in (row for piece in pieces for row in _lines(piece)):
                if "answers" in row or not only_answered:
                    kept = {key: value for key, value in row.items() if key not in IDS}
                    if id_column:
                        given = _id_of(row)
                        kept[id_column] = given if id_column == "id" else str(given)
                    file.write(msgspec.json.encode(kept) + b"\n")
        return answered[True] if only_answered else answered.total()

    def _id_column(self, split: str, pieces: Sequence[Path]) -> str:
        """What the column of ids is called: `id` where all are numbers, `question_id` where some are texts.

        "" where there are none, or where one comes twice; a table's questions are counted then.
        """
        ids = [_id_of(row) for piece in pieces for row in _lines(piece)]
        if all(one is None for one in ids):
            return ""
        if None in ids or len({str(one) for one in ids}) < len(ids):
            self.noted[f"{split}: its question ids are not unique, so questions are counted instead"] = 1
            return ""
        return "id" if all(isinstance(one, int) for one in ids) else "question_id"

    def _tidy(self) -> None:
        """Remove the pieces, and what a killed call was writing."""
        shutil.rmtree(self.out / PIECES, ignore_errors=True)
        for folder in (self.out, *(self.out / "images").glob("*")):
            sweep(folder)

    def _report(self, record: Record) -> GetReport:
        images = sum(1 for _ in (self.out / "images").glob("*/*"))
        return GetReport(record.tables, images, tuple(note for note in self.noted if not note.startswith("columns")))


def _files_of(repository: Repository, chosen: str) -> tuple[dict[str, Sequence[str]], list[str]]:
    """The files of each split, and those of another configuration that holds the images."""
    configurations = repository.configurations
    if chosen in configurations:
        return dict(configurations[chosen]), []
    images = [file for some in configurations[chosen + IMAGES].values() for file in some]
    return dict(configurations[chosen + INSTRUCTIONS]), images


def _archives(repository: Repository) -> list[str]:
    """Archives beside tables that only name their images."""
    return [file for file in sorted(repository.sizes) if file.endswith(".zip")]


def _id_of(row: Row) -> Any:
    return row.get("id", row.get("question_id"))


def _lines(piece: Path) -> Iterator[Row]:
    with piece.open("rb") as file:
        for line in file:
            yield msgspec.json.decode(line)


def _there(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
