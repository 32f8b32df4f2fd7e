"""Rows of published files, in pieces that fit into memory: row groups of parquet, stretches of JSON and CSV."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vqa.data.formats.decode import decode_file, decode_line, read_text
from vqa.errors import InputError, first_line, shortened

Row = dict[str, Any]
ROWS_AT_ONCE = 32  # of parquet, with their images
STRETCH = 1000  # rows of other files that are one piece
BUFFER = 1 << 20  # bytes read at once


def require_pyarrow() -> None:
    """Raises InputError unless pyarrow is there."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise InputError("reading parquet needs pyarrow: pip install 'vqa[hub]'") from None


class Table:
    """One published file, opened."""

    def __init__(self, path: Path, name: str) -> None:
        self.name, self._rows = name, None if name.endswith(".parquet") else _read_rows(path)
        if self._rows is not None:
            self.names = list(dict.fromkeys(key for row in self._rows[:STRETCH] for key in row))
            self.counts = [len(self._rows[start : start + STRETCH]) for start in range(0, len(self._rows), STRETCH)]
            return
        require_pyarrow()
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            self._file = pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: no parquet file, or damaged: {shortened(first_line(error))}") from None
        self.names = list(self._file.schema_arrow.names)
        groups = self._file.metadata.num_row_groups
        self.counts = [self._file.metadata.row_group(group).num_rows for group in range(groups)]

    def piece(self, number: int, names: Sequence[str]) -> Iterator[Row]:
        """The rows of one piece, with these columns; raises InputError when the file is damaged."""
        if self._rows is not None:
            yield from self._rows[number * STRETCH : (number + 1) * STRETCH]
            return
        import pyarrow as pa

        try:
            for batch in self._file.iter_batches(ROWS_AT_ONCE, row_groups=[number], columns=list(names)):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self.name}: damaged: {shortened(first_line(error))}") from None


def _read_rows(path: Path) -> list[Row]:
    """All rows of a JSON, JSON lines or CSV file; they hold no images, so they are small."""
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    if path.suffix == ".jsonl":
        lines = enumerate(read_text(path).split("\n"), start=1)
        return [decode_line(line, Row, path, number) for number, line in lines if line.strip()]
    value = decode_file(path, Any)
    value = value.get("data") if isinstance(value, dict) else value
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InputError(f"{path}: holds no list of questions")
    return value
