"""What every layout of a peer's feature file gives: image ids, and the regions of one image after the other.

Legend: `I` images, `R` regions (boxes) of one image, `C` channels.
"""

import math
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from vqa.errors import InputError, first_line, shortened

NUMERIC = "fiu"  # numpy's kinds of numbers
MOST_EXPANSION = 1100  # of compressed numbers: what deflate reaches at most
MOST_BYTES = 1 << 30  # of one image's features
ENDINGS = re.compile(r"(\.(jpe?g|png|gif|bmp|tiff?|webp|npz|npy|pth?))+$", re.IGNORECASE)
NUMBERED = re.compile(r"^(?:(?:COCO|abstract)_.*_)?(\d+)$")


class Regions(NamedTuple):
    """One image: features `[R, C]` in the file's type, and the boxes `[R, 6]`, or None where the file has none."""

    feature_RC: NDArray[np.floating]
    geometry_R6: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class PeerFeatures:
    """Files of one layout, opened.

    Attributes:
        image_ids: one an image, as the readers of `vqa.data` name it.
        paths: the file that holds each image's features.
        regions_I: how many regions each image has.
        channels: `C`.
        read: the regions of image `i`; raises InputError that names the file and the image.
        boxed: whether the files say where the regions of every image lie.
        given: one an image, its name in the files with its folders; none where `image_ids` say all.
    """

    image_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    regions_I: NDArray[np.int64]
    channels: int
    read: Callable[[int], Regions]
    boxed: bool = False
    given: tuple[str, ...] = ()


def image_id(name: str) -> str:
    """The id of an image by the name that a peer gives it: COCO's number, or else the file's name without ending.

    >>> image_id("train2014/COCO_train2014_000000000009.jpg"), image_id("9"), image_id("n16.1313.npz")
    ('9', '9', 'n16.1313')
    """
    stem = ENDINGS.sub("", Path(name).name)
    number = NUMBERED.match(stem)
    return str(int(number[1])) if number else stem


def box_geometry(box_R4: NDArray[np.floating], width: float, height: float) -> NDArray[np.floating]:
    """Boxes in pixels (left, top, right, bottom) as shares of the image's sides, with width and height: `[R, 6]`."""
    with np.errstate(divide="ignore", invalid="ignore"):  # of an image without size; refused where it is used
        share_R4 = box_R4 / np.array([width, height, width, height], dtype=np.float32)
        return np.concatenate([share_R4, share_R4[:, 2:] - share_R4[:, :2]], axis=1)


@contextmanager
def naming(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a reader raises on a damaged file into an InputError that names the file and says `what`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: {what}: {shortened(first_line(error))}") from None


def open_hdf5(path: Path, needed: Sequence[str], also: Sequence[str] = ()) -> Any:
    """An HDF5 file that holds at least one of the data sets `needed`, of numbers, and may hold those of `also`.

    Raises:
        InputError: that names the file and the data set.
    """
    with naming(path, "no HDF5 file, or truncated"):
        file = h5py.File(path, "r", locking=False)
    with naming(path, "damaged"):
        if not any(file.id.links.exists(name.encode()) for name in needed):
            raise InputError(f"{path}: holds {', '.join(file) or 'nothing'}, and no {' or '.join(needed)}")
        for name in (*needed, *also):
            if file.id.links.exists(name.encode()):
                _require_numbers(path, file, name)
    return file


def _require_numbers(path: Path, file: h5py.File, name: str) -> None:
    """Raises InputError for what is no array of numbers that lies in this file, as large as it says it is."""
    plain = isinstance(file.get(name, getlink=True), h5py.HardLink) and isinstance(file[name], h5py.Dataset)
    if not plain or file[name].id.get_type().get_class() not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT):
        raise InputError(f"{path}: {name} is no array of numbers")
    options, dataset = file[name].id.get_create_plist(), file[name]
    if dataset.shape is None or options.get_layout() == h5py.h5d.VIRTUAL or options.get_external_count():
        raise InputError(f"{path}: {name} does not lie in this file")
    if dataset.nbytes > MOST_EXPANSION * dataset.id.get_storage_size():
        raise InputError(f"{path}: {name} is said to be {' x '.join(map(str, dataset.shape))}, and the file holds less")


def one_file(paths: Sequence[Path], ending: str, what: str) -> Path | None:
    """The only file with that ending among those the user gave, or None; raises InputError when there are several."""
    found = [path for path in paths if path.name.endswith(ending)]
    if len(found) > 1:
        raise InputError(f"{found[1]}: a second {ending} file; give one {what}")
    return found[0] if found else None


def npz_head(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array in a `.npz`, from its head alone."""
    with archive.open(f"{name}.npy") as member:
        if np.lib.format.read_magic(member) == (1, 0):
            shape, _, kind = np.lib.format.read_array_header_1_0(member)
        else:
            shape, _, kind = np.lib.format.read_array_header_2_0(member)
    return shape, kind


def require_small(path: Path, name: str, shape: Sequence[int], kind: np.dtype[Any]) -> None:
    """Raises InputError for an array that is too large for one image's features."""
    if math.prod(shape) * kind.itemsize > MOST_BYTES:
        raise InputError(f"{path}: {name} is {kind} {tuple(shape)}, more than {MOST_BYTES >> 30} GiB for one image")
