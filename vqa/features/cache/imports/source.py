"""What every layout of a peer's feature file gives: image ids, and the regions of one image after the other.

Legend: `I` images, `R` regions (boxes) of one image, `C` channels.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from vqa.errors import InputError

NUMERIC = "fiu"  # numpy's kinds of numbers
ENDINGS = re.compile(r"(\.(jpe?g|png|gif|bmp|tiff?|webp|npz))+$", re.IGNORECASE)
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
    """

    image_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    regions_I: NDArray[np.int64]
    channels: int
    read: Callable[[int], Regions]


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


def open_hdf5(path: Path, needed: Sequence[str]) -> Any:
    """An HDF5 file that holds at least one of the data sets `needed`, of numbers; raises InputError that names it."""
    try:
        file = h5py.File(path, "r", locking=False)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: no HDF5 file, or truncated: {error}") from None
    if not any(name in file for name in needed):
        raise InputError(f"{path}: holds {', '.join(file) or 'nothing'}, and no {' or '.join(needed)}")
    for name in needed:
        if name in file and not (isinstance(file[name], h5py.Dataset) and file[name].dtype.kind in NUMERIC):
            raise InputError(f"{path}: {name} is no array of numbers")
    return file


def one_file(paths: Sequence[Path], ending: str, what: str) -> Path | None:
    """The only file with that ending among those the user gave, or None; raises InputError when there are several."""
    found = [path for path in paths if path.name.endswith(ending)]
    if len(found) > 1:
        raise InputError(f"{found[1]}: a second {ending} file; give one {what}")
    return found[0] if found else None
