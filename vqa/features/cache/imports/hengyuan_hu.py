"""The HDF5 files of hengyuan-hu/bottom-up-attention-vqa (36 boxes) and jnhwkim/ban-vqa (10 to 100 boxes).

`image_features` `[images, 36, C]` with `spatial_features` `[images, 36, 6]`; or all boxes below each other,
`[boxes, C]`, with `pos_boxes` `[images, 2]` that says where each image's begin and end. Which row is which image
stands in a file beside it: train36.hdf5 has train36_imgid2idx.pkl.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa.data.pickles import FLAT, read_plain_pickle
from vqa.errors import InputError
from vqa.features.cache.imports.source import PeerFeatures, Regions, image_id, naming, open_hdf5
from vqa.features.cache.reader import GEOMETRY
from vqa.files import read_json

IDS = "_imgid2idx"


def open_files(paths: Sequence[Path]) -> PeerFeatures:
    """Open `.hdf5` files; the ids of each are read from the file beside it."""
    opened = [_open_one(path) for path in paths if path.suffix not in (".pkl", ".json")]
    if not opened:
        raise InputError(f"{paths[0]}: give the .hdf5 file; its ids are found beside it")
    channels = {part.channels for part in opened}
    if len(channels) > 1:
        raise InputError(f"{paths[0]}: the files differ in channels: {sorted(channels)}")
    place = [(part, image) for part in opened for image in range(len(part.image_ids))]
    return PeerFeatures(
        image_ids=tuple(name for part in opened for name in part.image_ids),
        paths=tuple(path for part in opened for path in part.paths),
        regions_I=np.concatenate([part.regions_I for part in opened]),
        channels=channels.pop(),
        read=lambda image: place[image][0].read(place[image][1]),
        boxed=all(part.boxed for part in opened),
    )


def _open_one(path: Path) -> PeerFeatures:
    file = open_hdf5(path, ["image_features"], ["spatial_features", "pos_boxes"])
    features, geometry = file["image_features"], file.get("spatial_features")
    if features.ndim == 3:
        count, each = features.shape[:2]
        span_I2 = np.stack([np.arange(count), np.arange(count) + 1], axis=1)
        regions_I = np.full(count, each)
    elif features.ndim == 2 and "pos_boxes" in file:
        with naming(path, "pos_boxes cannot be read"):
            span_I2 = np.asarray(file["pos_boxes"])
        if span_I2.ndim != 2 or span_I2.shape[1] != 2 or span_I2.dtype.kind not in "iu":
            raise InputError(
                f"{path}: pos_boxes is {span_I2.dtype} {span_I2.shape}, expected whole numbers [images, 2]"
            )
        span_I2 = span_I2.astype(np.int64)
        regions_I = span_I2[:, 1] - span_I2[:, 0]
    else:
        raise InputError(f"{path}: image_features has {features.ndim} dimensions and there are no pos_boxes")
    if geometry is not None and geometry.shape[:-1] != features.shape[:-1]:
        raise InputError(f"{path}: spatial_features is {geometry.shape} beside image_features {features.shape}")
    row_of = _read_ids(path, len(span_I2))
    row_I = np.array(list(row_of.values()), dtype=np.int64)
    channels = features.shape[-1]
    if features.ndim == 2:
        _require_spans(path, span_I2[row_I], row_of, len(features))

    def read(image: int) -> Regions:
        first, end = span_I2[row_I[image]].tolist()
        with naming(path, f"row {row_I[image]} cannot be read"):
            boxes = None if geometry is None else geometry[first:end].reshape(-1, geometry.shape[-1])
            return Regions(features[first:end].reshape(-1, channels), boxes)

    boxed = geometry is not None and geometry.shape[-1] == GEOMETRY
    return PeerFeatures(tuple(row_of), (path,) * len(row_of), regions_I[row_I], channels, read, boxed)


def _require_spans(path: Path, span_N2: NDArray[np.int64], names: Iterable[str], rows: int) -> None:
    """Raises InputError for an image without boxes, or with boxes that are not in the file."""
    for name, (first, end) in zip(names, span_N2.tolist(), strict=True):
        if not 0 <= first < end <= rows:
            raise InputError(f"{path}: pos_boxes of image {name} are {first} to {end}, of {rows:,} boxes")


def _read_ids(path: Path, rows: int) -> dict[str, int]:
    """The row of each image, in the order of the rows."""
    ids = path.with_name(f"{path.stem}{IDS}.json")
    if ids.is_file():
        found = read_json(ids, dict[str, int])
    else:
        ids = ids.with_suffix(".pkl")
        found = _read_pickle(ids)
    if not isinstance(found, dict) or not found or not all(isinstance(row, int) for row in found.values()):
        raise InputError(f"{ids}: is no dict from image ids to rows")
    row_of = {image_id(str(name)): row for name, row in sorted(found.items(), key=lambda item: item[1])}
    used = list(row_of.values())
    if len(set(used)) != len(found) or used[0] < 0 or used[-1] >= rows:
        raise InputError(f"{ids}: its {len(found):,} ids do not fit the {rows:,} rows of {path.name}")
    return row_of


def _read_pickle(path: Path) -> Any:
    if not path.is_file():
        raise InputError(
            f"{path}: no such file, and it says which row is which image; put it (or a .json file of the same name "
            "with the same dict) beside the .hdf5 file"
        )
    return read_plain_pickle(path, FLAT)
