"""Features as arrays: `.npy`, `.npz`, `.pt` (tensors only) and HDF5, of anyone who kept ids beside them.

- A table: features `[images, channels]` or `[images, regions, channels]` and one id a row. In `.npz`, `.pt` and HDF5
  the ids are a second array (in `.pt` a list, too); beside `x.npy` they stand in `x.txt`, one a line, or in `x.json`.
- One array an image, `[channels]` or `[regions, channels]`: the entries of a `.npz`, of a dict in `.pt` or of HDF5
  (at any depth) are named by the image, as are the `.npy` and `.pt` files of a folder.
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from vqa.data.formats.decode import read_lines
from vqa.errors import InputError, shortened
from vqa.features.cache.imports.source import (
    NUMERIC,
    PeerFeatures,
    Regions,
    image_id,
    naming,
    npz_head,
    open_hdf5,
    require_small,
)
from vqa.files import read_json

ENDINGS = (".npy", ".npz", ".pt", ".pth", ".h5", ".hdf5")
IDS = ("ids", "id", "image_ids", "image_id", "names", "image_names", "filenames", "keys")
FEATURES = ("features", "feature", "image_features", "feats", "x")


class Entry(NamedTuple):
    """The features of one image in a file: its name there, their shape, and how they are read."""

    name: str
    path: Path
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]


def open_files(paths: Sequence[Path]) -> PeerFeatures:
    """Open files, or folders with files at any depth, whose paths from there are the images' names."""
    entries = [entry for path in paths for entry in _of(path)]
    if not entries:
        raise InputError(f"{paths[0]}: holds no {', '.join(ENDINGS)} file with features")
    shapes = [_regions(entry) for entry in entries]
    other = next((place for place, shape in enumerate(shapes) if shape[1] != shapes[0][1]), None)
    if other is not None:
        at, first = entries[other], entries[0]
        raise InputError(
            f"{at.path}: image {shortened(at.name)} has {shapes[other][1]} channels, {first.name} in {first.path} "
            f"has {shapes[0][1]}"
        )

    def read(image: int) -> Regions:
        entry = entries[image]
        with naming(entry.path, f"image {shortened(entry.name)} cannot be read"):
            return Regions(np.asarray(entry.read(), dtype=np.float32).reshape(shapes[image]))

    return PeerFeatures(
        image_ids=tuple(image_id(entry.name) for entry in entries),
        paths=tuple(entry.path for entry in entries),
        regions_I=np.array([shape[0] for shape in shapes]),
        channels=shapes[0][1],
        read=read,
        given=tuple(entry.name for entry in entries),
    )


def _regions(entry: Entry) -> tuple[int, int]:
    """(R, C) of one image."""
    if len(entry.shape) not in (1, 2):
        raise InputError(
            f"{entry.path}: image {shortened(entry.name)} is {list(entry.shape)}, expected [channels] or "
            "[regions, channels]"
        )
    return (1, entry.shape[0]) if len(entry.shape) == 1 else (entry.shape[0], entry.shape[1])


def _of(path: Path) -> Iterator[Entry]:
    if path.is_dir():
        for file in sorted(one for one in path.rglob("*") if one.suffix.lower() in ENDINGS):
            yield from _file(file, file.relative_to(path).with_suffix("").as_posix())
    else:
        yield from _file(path, path.stem)


def _file(path: Path, name: str) -> Iterator[Entry]:
    ending = path.suffix.lower()
    readers = {".npy": _npy, ".npz": _npz, ".pt": _pt, ".pth": _pt, ".h5": _hdf5, ".hdf5": _hdf5}
    if ending not in readers:
        raise InputError(f"{path}: features are read from {', '.join(ENDINGS)}")
    yield from readers[ending](path, name)


def _npy(path: Path, name: str) -> Iterator[Entry]:
    with naming(path, "no .npy file, or damaged"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    yield from _array(path, name, array)


def _array(path: Path, name: str, array: Any) -> Iterator[Entry]:
    """A whole file of one array: a table where ids lie beside it, else one image."""
    ids = _ids_beside(path)
    if ids is not None:
        yield from _table(path, array, ids)
    elif array.ndim == 3:
        beside = " or ".join(str(one) for one in _beside(path))
        raise InputError(f"{path}: is {list(array.shape)}; put the ids of its rows beside it: {beside}")
    else:
        _require_numbers(path, name, array.dtype)
        yield Entry(name, path, tuple(array.shape), lambda: array)


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_suffix(".txt"), path.with_suffix(".json")


def _ids_beside(path: Path) -> list[str] | None:
    lines, listed = _beside(path)
    if lines.is_file():
        return [line.strip() for line in read_lines(lines)]
    return [str(one) for one in read_json(listed, list[str | int])] if listed.is_file() else None


def _table(path: Path, array: Any, ids: Sequence[str]) -> Iterator[Entry]:
    """The rows of a table."""
    _require_numbers(path, "the table", array.dtype)
    if array.ndim not in (2, 3) or len(array) != len(ids):
        raise InputError(f"{path}: {len(ids):,} ids beside features {list(array.shape)}; do they belong together?")
    shape = tuple(array.shape[1:])
    for row, name in enumerate(ids):
        yield Entry(name, path, shape, lambda row=row: array[row])  # type: ignore[misc]


def _require_numbers(path: Path, name: str, kind: Any) -> None:
    if kind.kind not in NUMERIC:
        raise InputError(f"{path}: {shortened(name)} is {kind}, no numbers")


def _npz(path: Path, name: str) -> Iterator[Entry]:
    with naming(path, "no .npz file, or damaged"):
        arrays = np.load(path, allow_pickle=False)
        heads = {one: npz_head(arrays.zip, one) for one in arrays.files}
    if not any(one in heads for one in IDS):
        for one, (shape, kind) in heads.items():
            _require_numbers(path, one, kind)
            require_small(path, one, shape, kind)
            yield Entry(one, path, shape, lambda one=one: arrays[one])  # type: ignore[misc]
        return
    with naming(path, "damaged"):
        wanted = {one: arrays[one] for one in arrays.files if heads[one][1].kind != "O"}
    yield from _mapping(path, wanted)


def _mapping(path: Path, arrays: Mapping[str, NDArray[Any]]) -> Iterator[Entry]:
    """Arrays by name: ids and their features, or one array an image."""
    ids = next((one for one in IDS if one in arrays), None)
    if ids is None:
        for name, array in arrays.items():
            _require_numbers(path, name, array.dtype)
            yield Entry(name, path, tuple(array.shape), lambda array=array: array)  # type: ignore[misc]
        return
    numeric = [one for one, array in arrays.items() if one != ids and array.ndim > 1 and array.dtype.kind in NUMERIC]
    yield from _table(path, arrays[_one_of(path, numeric)], _texts(path, arrays[ids]))


def _one_of(path: Path, names: Sequence[str]) -> str:
    """The name of the features among several arrays."""
    known = [one for one in FEATURES if one in names]
    if len(names) == 1 or known:
        return known[0] if known else names[0]
    raise InputError(
        f"{path}: which array holds the features? Name it features; there are {', '.join(names) or 'none besides ids'}"
    )


def _texts(path: Path, ids: NDArray[Any]) -> list[str]:
    if ids.ndim != 1:
        raise InputError(f"{path}: ids are {list(ids.shape)}, expected one a row")
    return [one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in ids.tolist()]


def _pt(path: Path, name: str) -> Iterator[Entry]:
    """Only tensors and plain values are loaded, never code."""
    import torch

    with naming(path, "no file of tensors alone (torch.load with weights_only), or damaged"):
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    if isinstance(value, torch.Tensor):
        yield from _array(path, name, _numpy(value))
    elif isinstance(value, dict) and value:
        arrays = {
            str(key): _numpy(one) if isinstance(one, torch.Tensor) else _listed(one) for key, one in value.items()
        }
        odd = next((key for key, one in arrays.items() if one is None), None)
        if odd is not None:
            raise InputError(f"{path}: {shortened(odd)} is no tensor")
        yield from _mapping(path, {key: one for key, one in arrays.items() if one is not None})
    else:
        raise InputError(f"{path}: holds a {type(value).__name__}, expected a tensor or a dict of tensors")


def _numpy(tensor: Any) -> NDArray[Any]:
    import torch

    plain = tensor.detach()
    return np.asarray((plain.float() if plain.dtype == torch.bfloat16 else plain).numpy())


def _listed(value: Any) -> NDArray[Any] | None:
    """A list of ids as an array."""
    texts = isinstance(value, (list, tuple)) and all(isinstance(one, (str, int)) for one in value)
    return np.array([str(one) for one in value]) if texts else None


def _hdf5(path: Path, name: str) -> Iterator[Entry]:
    with naming(path, "no HDF5 file, or truncated"), h5py.File(path, "r", locking=False) as file:
        kinds: dict[str, tuple[int, str]] = {}
        file.visititems(lambda key, one: kinds.update({key: _kind(one)}) if isinstance(one, h5py.Dataset) else None)
    ids = next((one for one in IDS if one in kinds), None)
    numeric = [one for one, (_, kind) in kinds.items() if kind in NUMERIC and one != ids]
    if not numeric:
        raise InputError(f"{path}: holds no array of numbers")
    if ids is None:
        opened = open_hdf5(path, numeric)
        for one in numeric:
            yield Entry(one, path, tuple(opened[one].shape), lambda one=one: opened[one][()])  # type: ignore[misc]
        return
    features = _one_of(path, [one for one in numeric if kinds[one][0] > 1])
    opened = open_hdf5(path, [features])
    with naming(path, f"{ids} cannot be read"):
        found = np.asarray(opened[ids].asstr()[:] if kinds[ids][1] in "OS" else opened[ids][:])
    yield from _table(path, opened[features], _texts(path, found))


def _kind(one: Any) -> tuple[int, str]:
    return one.ndim if one.shape is not None else 0, one.dtype.kind
