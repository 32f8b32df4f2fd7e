"""What a feature cache must hold (`features_cache/README.md`), checked before anything of it is used.

People write such files by hand, and disks damage them. So every attribute and data set is looked at by its type, shape
and place in the file first, and read only when the file is large enough to hold it. All that is missing or wrong is
listed at once.

Legend: `I` all rows of the file, `R` regions.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vqa.errors import InputError, shortened
from vqa.features.cache.attributes import FORMAT_VERSION, OPTIONAL, REQUIRED, attribute_faults, reading
from vqa.features.cache.text_heap import REFERENCE_BYTES, text_faults

DIGEST_BYTES = 64  # SHA-256 in hexadecimal
FORMAT_README = "features_cache/README.md"
PLAIN_TYPES = (h5py.h5t.STRING, h5py.h5t.INTEGER, h5py.h5t.FLOAT)
DATASETS = {
    "features": "[images, regions, channels] float16 or int8, little-endian",
    "image_id": "[images] UTF-8 of fixed length (h5py.string_dtype('utf-8', LENGTH))",
    "image_path": "[images] UTF-8 of fixed length (h5py.string_dtype('utf-8', LENGTH))",
    "image_digest": "[images] 64 ASCII characters each (NumPy's S64), empty where no digest is known",
    "done": "[images] uint8, 1 where /features holds the row and 0 where not",
    "scale": "[images] float32, by which an image's int8 features are multiplied",
    "region_count": "[images] int32 or int64, little-endian: how many regions of an image are real, which come first",
    "boxes": "[images, regions, 4] float32: x1, y1, x2, y2 of a region, as shares of the image's width and height",
}
MAY_LACK = ("scale", "image_path", "region_count", "boxes")
RANKS = {"features": 3, "boxes": 3}  # of the others 1
NUMBERS = {"features": ("<f2", "i1"), "scale": ("<f4",), "region_count": ("<i4", "<i8"), "boxes": ("<f4",)}
BOX = 4  # numbers of a box
BOX_ROWS = 4096  # that are looked at together
CONTIGUOUS = "write it without chunks, compression or maxshape"


@dataclass(frozen=True)
class Header:
    """All of a cache but its features.

    Attributes:
        attributes: of the root, those that are single numbers or texts; `preprocessing` as a dict.
        shape: of `/features`.
        dtype: of `/features`, float16 or int8.
        offsets: where the data sets begin in the file, in bytes.
        places: the same with the bytes of a row.
        image_ids, image_digests: one a row.
        image_paths: one a row; "" where the file does not say.
        done_I: bool, the rows that hold features.
        scale_I: float32, with int8 only.
        count_I: int64, how many regions are real; None where the file does not say: all are.
    """

    attributes: dict[str, Any]
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offsets: dict[str, int]
    places: dict[str, tuple[int, int]]
    image_ids: tuple[str, ...]
    image_paths: tuple[str, ...]
    image_digests: tuple[str, ...]
    done_I: NDArray[np.bool_]
    scale_I: NDArray[np.float32] | None
    count_I: NDArray[np.int64] | None


def read_header(path: Path) -> Header:
    """Check a feature cache and read all but its features.

    Raises:
        InputError: that lists everything that is missing or wrong, and what should be there.
    """
    faults: list[str] = []
    header = None
    with reading("no HDF5 file, or truncated", faults), h5py.File(path, "r", locking=False) as file:
        header = _header(path, file, faults)
    if header is None or faults:
        where = f"the format is described in {FORMAT_README}"
        if len(faults) == 1:
            raise InputError(f"{path}: not a feature cache, or a damaged one: {faults[0]}; {where}")
        listed = "\n".join(f"  {fault}" for fault in faults)
        raise InputError(f"{path}: not a feature cache: {len(faults)} things are missing or wrong; {where}\n{listed}")
    return header


def _header(path: Path, file: h5py.File, faults: list[str]) -> Header | None:
    """The header, or None beside what is added to `faults`."""
    size = path.stat().st_size
    wrong: list[str] = []
    found = {name: stored for name in DATASETS if (stored := _dataset(file, name, size, wrong))}
    data = [(int(one.id.get_offset()), int(one.id.get_offset()) + one.nbytes) for one in found.values()]
    faults += text_faults(path, file.userblock_size, data)
    if faults:
        return None  # HDF5 must not read its attributes
    attributes = _attributes(file, size, faults)
    version = attributes.get("format_version")
    if isinstance(version, int) and version != FORMAT_VERSION:
        faults[:] = [f"format_version {version} instead of {FORMAT_VERSION}: was it written by a later vqa?"]
        return None
    faults += attribute_faults(attributes) + wrong
    features = found.get("features")
    if features is None:
        return None
    for name, stored in found.items():
        if stored.shape[0] != features.shape[0]:
            faults.append(f"/{name} has {stored.shape[0]:,} rows and /features {features.shape[0]:,}")
    boxes = found.get("boxes")
    if boxes is not None and boxes.shape[1:] != (features.shape[1], BOX):
        faults.append(
            f"/boxes is {list(boxes.shape)} and /features {list(features.shape)}, expected {DATASETS['boxes']}"
        )
    values = {name: _values(path, name, stored, faults) for name, stored in found.items() if RANKS.get(name, 1) == 1}
    if not faults and (count_I := values.get("region_count")) is not None:
        faults += _count_faults(count_I, features.shape[1], values["done"])
    if not faults and boxes is not None:
        faults += _box_faults(path, boxes, values["done"])
    if faults:
        return None
    attributes["preprocessing"] = json.loads(attributes["preprocessing"])
    return Header(
        attributes=attributes,
        shape=features.shape,
        dtype=features.dtype,
        offsets={name: int(stored.id.get_offset()) for name, stored in found.items()},
        places={name: (int(one.id.get_offset()), one.nbytes // one.shape[0]) for name, one in found.items()},
        image_ids=values["image_id"],
        image_paths=values.get("image_path", ("",) * len(values["image_id"])),
        image_digests=values["image_digest"],
        done_I=values["done"],
        scale_I=values.get("scale") if features.dtype == np.int8 else None,
        count_I=values.get("region_count"),
    )


def _attributes(file: h5py.File, size: int, faults: list[str]) -> dict[str, Any]:
    """The root's attributes that are single texts or numbers; what else has a known name is a fault."""
    found: dict[str, Any] = {}
    with reading("its attributes cannot be read", faults):
        for name in list(file.attrs):
            wrong: list[str] = []
            with reading(f"attribute {name} cannot be read", wrong):
                value = _attribute(file, name, size)
                if value is None:
                    wrong.append(f"attribute {name} is no single text or number")
                else:
                    found[name] = value
            faults += wrong if name in REQUIRED or name in OPTIONAL else []
    known = [name for name in REQUIRED if name not in found and not any(f"attribute {name} " in one for one in faults)]
    faults += [f"attribute {name} is missing: {REQUIRED[name]}" for name in known]
    return found


def _attribute(file: h5py.File, name: str, size: int) -> str | int | float | None:
    """One attribute, None where it is no single text or number; what is larger than the file is not asked for."""
    stored = h5py.h5a.open(file.id, name.encode("utf-8", "surrogateescape"))
    kind, taken = stored.get_type(), stored.get_storage_size()
    if stored.shape != () or taken > size or kind.get_class() not in PLAIN_TYPES:
        return None  # HDF5 crashes on damaged types of other classes
    if kind.get_class() == h5py.h5t.STRING and kind.is_variable_str() and taken != REFERENCE_BYTES:
        raise ValueError("its text is damaged")
    value = file.attrs[name]
    value = value.item() if isinstance(value, np.generic) else value
    value = value.decode() if isinstance(value, bytes) else value
    if isinstance(value, str):
        value.encode()  # raises for what is no UTF-8
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float) else None


def _dataset(file: h5py.File, name: str, size: int, faults: list[str]) -> h5py.Dataset | None:
    """A data set whose numbers lie in this file one after another, of the right type and rank; else a fault."""
    wrong: list[str] = []
    found = None
    with reading(f"/{name} cannot be read", wrong):
        found = stored_dataset(file, name, size, wrong)
        if found is None and not wrong and name not in MAY_LACK:
            wrong.append(f"/{name} is missing: {DATASETS[name]}")
        if name == "scale" and found is None and not wrong and _type_name(file) == "int8":
            wrong.append(f"/scale is missing: {DATASETS[name]}")
        if found is not None and not _right_type(name, found):
            shape = ", ".join(map(str, found.shape))
            wrong.append(f"/{name} is {shortened(_type(found))} [{shape}], expected {DATASETS[name]}")
        elif found is not None and 0 in found.shape:
            wrong.append(f"/{name} is empty: {found.shape}")
    faults += wrong
    return None if wrong else found


def _type_name(file: h5py.File) -> str:
    features = file.get("features")
    return features.dtype.name if isinstance(features, h5py.Dataset) else ""


def _type(dataset: h5py.Dataset) -> str:
    """A data set's type in words."""
    if h5py.check_string_dtype(dataset.dtype) is not None and dataset.dtype.kind == "O":
        return "text of variable length"
    if dataset.dtype.byteorder == ">":
        return f"big-endian {dataset.dtype.name}"
    return "compound" if dataset.dtype.names else dataset.dtype.name


def _right_type(name: str, dataset: h5py.Dataset) -> bool:
    """Whether type and rank are those of the format; numbers to the bit, because they are read as bytes."""
    if dataset.ndim != RANKS.get(name, 1):
        return False
    if name in ("image_id", "image_path"):
        return bool(dataset.dtype.kind == "S")
    if name == "image_digest":
        return bool(dataset.dtype.kind == "S" and dataset.dtype.itemsize == DIGEST_BYTES)
    if name == "done":
        return dataset.dtype in (np.dtype(np.uint8), np.dtype(np.int8), np.dtype(np.bool_))
    stored = dataset.id.get_type()
    return any(stored.equal(h5py.h5t.py_create(np.dtype(kind))) for kind in NUMBERS[name])


def stored_dataset(file: h5py.File, name: str, size: int, faults: list[str]) -> h5py.Dataset | None:
    """A data set that lies whole and plain in this file; None where there is none, or beside a fault.

    Raises:
        Exception: whatever HDF5 raises on a damaged file.
    """
    group: Any = file
    for part in name.split("/"):
        if not isinstance(group, h5py.Group) or not group.id.links.exists(part.encode()):
            return None
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            faults.append(f"/{name} is a link to another place; store the data set itself")
            return None
        group = group[part]
    if not isinstance(group, h5py.Dataset):
        faults.append(f"/{name} is no data set")
        return None
    options = group.id.get_create_plist()
    if group.shape is None:
        faults.append(f"/{name} holds nothing")
    elif options.get_layout() != h5py.h5d.CONTIGUOUS:
        faults.append(f"/{name} is not contiguous; {CONTIGUOUS}")
    elif options.get_external_count():
        faults.append(f"/{name} lies in another file; store the data set itself")
    elif count := math.prod(group.shape):
        offset = group.id.get_offset()
        if offset is None:
            faults.append(f"/{name} was never written")
        elif offset + count * group.id.get_type().get_size() > size:
            faults.append(f"/{name} is truncated: the file is shorter than its own header says")
    return None if faults else group


def _values(path: Path, name: str, dataset: h5py.Dataset, faults: list[str]) -> Any:
    """All of a small data set, as `Header` has it; its bytes are as in memory, so HDF5 need not convert them."""
    with reading(f"/{name} cannot be read", faults):
        dtype = np.dtype(f"S{dataset.dtype.itemsize}") if dataset.dtype.kind == "S" else dataset.dtype
        stored = np.fromfile(path, dtype, len(dataset), offset=dataset.id.get_offset())
        if name in ("image_id", "image_path"):
            texts = tuple(value.decode() for value in stored.tolist())
            faults += _id_faults(texts) if name == "image_id" else []
            return texts
        if name == "image_digest":
            faults += _digest_faults(stored)
            return tuple(value.decode("ascii", "replace") for value in stored.tolist())
        if name == "done":
            other_I = ~np.isin(stored.view(np.uint8), (0, 1))
            if other_I.any():
                faults.append(
                    f"/done is {stored.view(np.uint8)[other_I][0]} in row {other_I.argmax()}, expected 0 or 1"
                )
            return stored.astype(bool)
        if name == "region_count":
            return stored.astype(np.int64)
        wrong_I = ~(np.isfinite(stored) & (stored >= 0))
        if wrong_I.any():
            faults.append(f"/scale is {stored[wrong_I][0]} in row {wrong_I.argmax()}, expected a number from 0 on")
        return stored
    return ()


def _count_faults(count_I: NDArray[np.int64], regions: int, done_I: NDArray[np.bool_]) -> list[str]:
    """What is wrong with the counts of rows that hold features; of the others nothing is known yet."""
    wrong_I = done_I & ((count_I < 1) | (count_I > regions))
    if not wrong_I.any():
        return []
    row = wrong_I.argmax()
    return [f"/region_count is {count_I[row]} in row {row}, expected 1 to {regions}, the regions of /features"]


def _box_faults(path: Path, boxes: h5py.Dataset, done_I: NDArray[np.bool_]) -> list[str]:
    """What is wrong with the boxes of rows that hold features; all of them are looked at, padded regions too."""
    faults: list[str] = []
    rows, offset = boxes.shape[0], boxes.id.get_offset()
    with reading("/boxes cannot be read", faults):
        each = math.prod(boxes.shape[1:])
        for first in range(0, rows, BOX_ROWS):
            count = min(BOX_ROWS, rows - first)
            box_NR4 = np.fromfile(path, "<f4", count * each, offset=offset + first * each * 4).reshape(count, -1, BOX)
            inside_NR = ((box_NR4 >= 0) & (box_NR4 <= 1)).all(axis=2)  # False for NaN
            right_NR = inside_NR & (box_NR4[..., 0] <= box_NR4[..., 2]) & (box_NR4[..., 1] <= box_NR4[..., 3])
            wrong_NR = ~right_NR & done_I[first : first + count, None]
            if wrong_NR.any():
                row, region = (int(place[0]) for place in wrong_NR.nonzero())
                numbers = ", ".join(f"{number:g}" for number in box_NR4[row, region])
                return [
                    f"/boxes is {numbers} in row {first + row}, region {region}, expected x1, y1, x2, y2 from 0 to 1 "
                    "with x1 <= x2 and y1 <= y2"
                ]
    return faults


def _id_faults(ids: tuple[str, ...]) -> list[str]:
    if "" in ids:
        return [f"/image_id is empty in row {ids.index('')}"]
    if len(set(ids)) == len(ids):
        return []
    seen: set[str] = set()
    twice = [one for one in ids if one in seen or seen.add(one)]  # type: ignore[func-returns-value]
    return [f"/image_id holds {len(twice):,} ids again that it has before, first {shortened(twice[0])!r}"]


def _digest_faults(digest_I: NDArray[np.bytes_]) -> list[str]:
    letters_I64 = np.frombuffer(digest_I.tobytes(), dtype=np.uint8).reshape(len(digest_I), DIGEST_BYTES)
    hexadecimal_I = np.isin(letters_I64, np.frombuffer(b"0123456789abcdef", dtype=np.uint8)).all(axis=1)
    wrong_I = ~hexadecimal_I & letters_I64.any(axis=1)
    if not wrong_I.any():
        return []
    return [f"/image_digest of row {wrong_I.argmax()} is neither 64 digits 0 to f nor empty"]


def read_arrays(path: Path, ranks: Mapping[str, int], what: str) -> dict[str, NDArray[np.float64]]:
    """More data sets of a cache, all float64 and finite, such as an encoder's parameters.

    Args:
        path: the cache.
        ranks: how many dimensions each has, by its path in the file.
        what: they are, in the plural.

    Raises:
        InputError: that lists those that are missing or wrong.
    """
    faults: list[str] = []
    arrays: dict[str, NDArray[np.float64]] = {}
    with reading("damaged", faults), h5py.File(path, "r", locking=False) as file:
        for name, rank in ranks.items():
            wrong: list[str] = []
            with reading(f"/{name} cannot be read", wrong):
                found = stored_dataset(file, name, path.stat().st_size, wrong)
                if found is not None and found.ndim == rank and found.dtype == np.dtype("<f8"):
                    arrays[name] = found[:]
                    wrong += [] if np.isfinite(arrays[name]).all() else [f"/{name} is not finite"]
                elif not wrong:
                    wrong.append(f"/{name} is no float64 array of {rank} dimensions")
            faults += wrong
    if faults:
        raise InputError(f"{path}: {what} are damaged: {'; '.join(faults)}")
    return arrays
