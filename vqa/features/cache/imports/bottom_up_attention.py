"""Bottom-up attention as published: tab-separated text, one image a line, boxes and features in base64 float32.

Peter Anderson et al. 2018 (36 boxes an image, or 10 to 100), and Hao Tan and Mohit Bansal 2019 (LXMERT, ten columns).
The files have several GB: a first pass notes where each line begins, and a line is decoded only when it is its turn.

Legend: `R` boxes of one image, `C` channels.
"""

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqa.errors import InputError
from vqa.features.cache.imports.source import MOST_BYTES, PeerFeatures, Regions, box_geometry, image_id
from vqa.progress import progress_bar

MOST_BOXES = 100_000  # of an image


class Columns(NamedTuple):
    """Where the columns stand."""

    name: int
    width: int
    height: int
    box_count: int
    boxes: int
    features: int


COLUMNS = {6: Columns(0, 1, 2, 3, 4, 5), 10: Columns(0, 2, 1, 7, 8, 9)}  # by how many there are


class Line(NamedTuple):
    """One image's place."""

    path: Path
    number: int
    offset: int
    name: str
    boxes: int

    def __str__(self) -> str:
        return f"{self.path}: line {self.number} (image {self.name})"


def open_files(paths: Sequence[Path]) -> PeerFeatures:
    """Open `.tsv` files."""
    lines = [line for path in paths for line in _scan(path)]
    if not lines:
        raise InputError(f"{paths[0]}: empty")
    channels = _read_line(lines[0]).feature_RC.shape[1]

    def read(image: int) -> Regions:
        regions = _read_line(lines[image])
        if regions.feature_RC.shape[1] != channels:
            raise InputError(f"{lines[image]}: {regions.feature_RC.shape[1]} channels, the first has {channels}")
        return regions

    return PeerFeatures(
        image_ids=tuple(image_id(line.name) for line in lines),
        paths=tuple(line.path for line in lines),
        regions_I=np.array([line.boxes for line in lines]),
        channels=channels,
        read=read,
        boxed=True,
    )


def _scan(path: Path) -> list[Line]:
    """Where the lines of a file begin, and how many boxes each has."""
    found: list[Line] = []
    try:
        with path.open("rb") as file, progress_bar() as bar:
            task = bar.add_task(f"Looking through {path.name}", total=path.stat().st_size, note="bytes")
            offset = 0
            for number, text in enumerate(iter(lambda: file.readline(MOST_BYTES), b""), start=1):
                cells = _cells(text, f"{path}: line {number}")
                at = COLUMNS[len(cells)]
                boxes = int(cells[at.box_count])
                if not 1 <= boxes <= MOST_BOXES:
                    raise InputError(f"{path}: line {number}: {boxes} boxes")
                found.append(Line(path, number, offset, cells[at.name].decode(errors="backslashreplace"), boxes))
                offset += len(text)
                bar.update(task, completed=offset)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{path}: line {len(found) + 1}: its number of boxes is no whole number") from None
    return found


def _cells(text: bytes, where: str) -> list[bytes]:
    cells = text.rstrip(b"\r\n").split(b"\t")
    if len(cells) not in COLUMNS:
        raise InputError(
            f"{where}: {len(cells)} columns, expected 6 (image_id, image_w, image_h, num_boxes, boxes, features) or "
            "LXMERT's 10; is the file truncated?"
        )
    return cells


def _read_line(line: Line) -> Regions:
    with line.path.open("rb") as file:
        file.seek(line.offset)
        cells = _cells(file.readline(), str(line))
    at = COLUMNS[len(cells)]
    box_R4, feature_RC = (_decode(cells[column], line) for column in (at.boxes, at.features))
    if box_R4.shape[1] != 4:
        raise InputError(f"{line}: boxes of {box_R4.shape[1]} numbers instead of 4")
    try:
        return Regions(feature_RC, box_geometry(box_R4, float(cells[at.width]), float(cells[at.height])))
    except ValueError:
        raise InputError(f"{line}: the image's width or height is no number") from None


def _decode(cell: bytes, line: Line) -> NDArray[np.float32]:
    """Base64 float32 as `[R, any]`."""
    try:
        numbers = np.frombuffer(base64.b64decode(cell), dtype="<f4")
        return numbers.reshape(line.boxes, -1 if len(numbers) else 0)
    except (binascii.Error, ValueError):
        raise InputError(f"{line}: damaged or truncated: no {line.boxes} boxes of float32 numbers") from None
