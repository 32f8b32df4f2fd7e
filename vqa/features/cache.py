"""The feature cache: one HDF5 file a set of pictures (format: `features_cache/README.md`).

The file is made whole, with every row reserved, and takes its name in one step. From then on only bytes inside the
data sets change, first the features, then the flags that vouch for them, so a process that dies at any moment
leaves a file that can be read and completed.

Legend: `N` some rows, `I` all rows of the file, `R` regions, `C` channels.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from vqa.data.dataset import ImageTable
from vqa.errors import InputError

FORMAT_VERSION = 1
DIGEST_BYTES = 64  # SHA-256 in hexadecimal
# Attributes that must be equal for two features to be comparable; the others say how the file came about.
IDENTITY = ("format_version", "encoder", "layer", "image_size", "weights_sha256", "preprocessing")
SPAN_BYTES = 64 << 20  # the most that one read takes


class FeatureCache:
    """A cache opened for reading.

    Attributes:
        path: the file.
        attributes: the root attributes, `preprocessing` as a dict.
        image_ids: one id a row.
        image_digests: SHA-256 of each picture's file, "" where the row is not done.
        done_I: bool, the rows that hold features.
        regions, channels: `R` and `C`.
        dtype: what is stored, float16.
        offset: where `/features` begins in the file, in bytes.
    """

    def __init__(self, path: Path) -> None:
        """Open and check the file.

        Raises:
            InputError: when it is missing, truncated, or no feature cache of this version.
        """
        self.path = path
        if not path.is_file():
            raise InputError(f"{path}: no such feature cache; make it with `vqa features extract`")
        try:
            with h5py.File(path, "r", locking=False) as file:
                self._read_header(file)
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise InputError(f"{path}: not a feature cache, or truncated: {error}") from None
        if path.stat().st_size < self.offset + len(self.image_ids) * self.row_bytes:
            raise InputError(f"{path}: truncated: shorter than its own header says")

    def _read_header(self, file: h5py.File) -> None:
        self.attributes: dict[str, Any] = {
            key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()
        }
        if self.attributes.get("format_version") != FORMAT_VERSION:
            raise ValueError(f"format_version {self.attributes.get('format_version')} instead of {FORMAT_VERSION}")
        self.attributes["preprocessing"] = json.loads(self.attributes["preprocessing"])
        features = file["features"]
        offset = features.id.get_offset()
        if features.ndim != 3 or features.dtype != np.float16 or offset is None:
            raise ValueError("/features is not a contiguous float16 array of three dimensions")
        self.offset = int(offset)
        self.dtype = features.dtype
        rows, self.regions, self.channels = (int(size) for size in features.shape)
        self.row_bytes = self.regions * self.channels * self.dtype.itemsize
        self.image_ids: tuple[str, ...] = tuple(file["image_id"].asstr()[:])
        self.done_I: NDArray[np.bool_] = file["done"][:].astype(bool)
        self.image_digests: tuple[str, ...] = tuple(value.decode("ascii") for value in file["image_digest"][:].tolist())
        if not len(self.image_ids) == len(self.done_I) == len(self.image_digests) == rows:
            raise ValueError("its data sets have different lengths")
        self._row_of = {image_id: row for row, image_id in enumerate(self.image_ids)}

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def completing_command(self) -> str:
        """What the user runs to fill the rows that are not done."""
        return self.attributes.get("command") or f"vqa features extract … --out {self.path}"

    def find(self, image_ids: Sequence[str]) -> NDArray[np.int64]:
        """The row of each picture that is there and done, else -1."""
        row_N = np.fromiter((self._row_of.get(i, -1) for i in image_ids), dtype=np.int64, count=len(image_ids))
        return np.where((row_N >= 0) & self.done_I[row_N], row_N, -1) if len(self) else row_N

    def rows(self, image_ids: Sequence[str]) -> NDArray[np.int64]:
        """The row of each picture.

        Raises:
            InputError: when pictures are missing from the file or not extracted yet; names the first of them, says
                how many there are, and gives the command that completes the file.
        """
        row_N = self.find(image_ids)
        lacking = [image_ids[i] for i in np.flatnonzero(row_N < 0).tolist()]
        absent = [image_id for image_id in lacking if image_id not in self._row_of]
        if absent:
            raise InputError(
                f"{self.path}: does not hold {len(absent):,} of {len(image_ids):,} pictures, first: "
                f"{', '.join(absent[:5])}\nIt was made by: {self.completing_command}"
            )
        if lacking:
            raise InputError(
                f"{self.path}: {len(lacking):,} of {len(image_ids):,} pictures are not extracted yet, first: "
                f"{', '.join(lacking[:5])}\nComplete it with: {self.completing_command}"
            )
        return row_N

    def read(self, row_N: NDArray[np.integer]) -> torch.Tensor:
        """The features of some rows, in the order asked for: `[N, R, C]` in the stored type."""
        out_NRC = torch.empty((len(row_N), self.regions, self.channels), dtype=torch.float16)
        self.read_into(np.asarray(row_N, dtype=np.int64), np.arange(len(row_N)), out_NRC)
        return out_NRC

    def read_into(self, row_N: NDArray[np.int64], place_N: NDArray[np.integer], out: torch.Tensor) -> None:
        """Copy row `row_N[i]` of the file to `out[place_N[i]]`, reading the file once, from front to back.

        `out` is `[any, R, C]` on any device; a type other than the stored one is converted on the way.
        """
        order = np.argsort(row_N, kind="stable")
        sorted_row_N, sorted_place_N = row_N[order], torch.from_numpy(np.asarray(place_N, dtype=np.int64)[order])
        most = max(1, SPAN_BYTES // max(1, self.row_bytes))
        buffer = np.empty((min(most, len(self)), self.regions, self.channels), dtype=self.dtype)
        with self.path.open("rb", buffering=0) as file:
            start = 0
            while start < len(order):
                first = int(sorted_row_N[start])
                # Read on over small gaps: one long read is faster than many short ones.
                stop = int(np.searchsorted(sorted_row_N, first + most))
                gaps = np.flatnonzero(np.diff(sorted_row_N[start:stop]) > 16)
                stop = start + int(gaps[0]) + 1 if len(gaps) else stop
                count = int(sorted_row_N[stop - 1]) - first + 1
                file.seek(self.offset + first * self.row_bytes)
                if _read_fully(file, buffer[:count]) != count * self.row_bytes:
                    raise InputError(f"{self.path}: truncated: row {first} cannot be read")
                found = torch.from_numpy(buffer[sorted_row_N[start:stop] - first]).to(out.device)
                out.index_copy_(0, sorted_place_N[start:stop].to(out.device), found.to(out.dtype))
                start = stop

    def memory_map(self) -> NDArray[np.float16]:
        """The features `[I, R, C]` as a read-only map of the file: pages are read when they are touched."""
        shape = (len(self), self.regions, self.channels)
        return np.memmap(self.path, dtype=np.float16, mode="r", offset=self.offset, shape=shape)

    def contradictions(self, expected: Mapping[str, Any]) -> list[str]:
        """One sentence for each expected attribute that this file states otherwise; empty when they agree."""
        return differences(self.attributes, expected, self.path)


def differences(stated: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> list[str]:
    """What `path` states otherwise than `expected`; keys of nested dicts are compared one by one."""
    found: list[str] = []
    for key, value in expected.items():
        here = stated.get(key)
        if isinstance(value, Mapping) and isinstance(here, Mapping):
            found += [f"{sentence}" for sentence in differences(here, value, path)]
        elif here != value:
            found.append(f"{path}: {key} is {here!r}, expected {value!r}")
    return found


class CacheWriter:
    """A cache opened for writing, by one process at a time; made when it is not there, completed when it is.

    Use as a context manager. `write` puts features in place, `commit` vouches for them.

    Attributes:
        done_I: bool, the rows that hold features already.
    """

    def __init__(
        self, path: Path, images: ImageTable, attributes: Mapping[str, Any], regions: int, channels: int
    ) -> None:
        """Make the file, or open the one that is there after checking that it is the same cache.

        Args:
            path: the file.
            images: one row each.
            attributes: the encoder's `attributes()` and more, such as "command".
            regions, channels: `R` and `C`.

        Raises:
            InputError: when another process writes the file, when the file that is there has other attributes or
                pictures (it is left as it is), or when the disk has no room for it.
        """
        self.path = path
        self._pending: list[tuple[NDArray[np.int64], list[str]]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _create(path, images, {"format_version": FORMAT_VERSION, **attributes}, regions, channels)
        self._descriptor = _lock(path, os.O_RDWR)
        try:
            cache = FeatureCache(path)
            wrong = differences(cache.attributes, {key: attributes[key] for key in IDENTITY if key in attributes}, path)
            if (cache.regions, cache.channels) != (regions, channels):
                wrong.append(
                    f"{path}: holds {cache.regions} x {cache.channels} a picture, expected {regions} x {channels}"
                )
            wrong += _other_images(cache, images)
            if wrong:
                raise InputError("\n".join([*wrong, "It was left as it is; choose another --out or remove it."]))
            with h5py.File(path, "r", locking=False) as file:
                self._done_at = int(file["done"].id.get_offset())
                self._digest_at = int(file["image_digest"].id.get_offset())
        except BaseException:
            os.close(self._descriptor)
            raise
        self._features_at, self._row_bytes = cache.offset, cache.row_bytes
        self._shape = (regions, channels)
        self.done_I = cache.done_I.copy()

    def write(self, row_N: NDArray[np.int64], feature_NRC: NDArray[np.float16], digests: Sequence[str]) -> None:
        """Put features in their rows; they count only after the next `commit`.

        Args:
            row_N: rows of the file.
            feature_NRC: float16.
            digests: SHA-256 of each picture's file, in hexadecimal.

        Raises:
            InputError: when the disk is full.
        """
        if feature_NRC.shape != (len(row_N), *self._shape) or feature_NRC.dtype != np.float16:
            raise ValueError(f"features {feature_NRC.dtype} {feature_NRC.shape} do not fit {self._shape}")
        for row, feature_RC in zip(row_N.tolist(), np.ascontiguousarray(feature_NRC), strict=True):
            self._put(feature_RC.tobytes(), self._features_at + row * self._row_bytes)
        self._pending.append((row_N, list(digests)))

    def commit(self) -> None:
        """Bring everything written so far to the disk, then flag its rows as done."""
        if not self._pending:
            return
        os.fsync(self._descriptor)
        for row_N, digests in self._pending:
            for row, digest in zip(row_N.tolist(), digests, strict=True):
                self._put(digest.encode("ascii"), self._digest_at + row * DIGEST_BYTES)
                self._put(b"\x01", self._done_at + row)
                self.done_I[row] = True
        self._pending.clear()

    def _put(self, content: bytes, offset: int) -> None:
        """Write all of `content` at a place of the file."""
        try:
            while content:
                written = os.pwrite(self._descriptor, content, offset)
                content, offset = content[written:], offset + written
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written: {error.strerror}; what was done before is kept"
            ) from None

    def close(self) -> None:
        """Commit, and let other processes write the file."""
        try:
            self.commit()
        finally:
            os.close(self._descriptor)

    def __enter__(self) -> "CacheWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _other_images(cache: FeatureCache, images: ImageTable) -> list[str]:
    """A sentence when the file is about other pictures, or the same in another order."""
    if cache.image_ids == images.ids:
        return []
    only_asked = [i for i in images.ids if i not in set(cache.image_ids)][:3] if len(images.ids) < 10**6 else []
    return [
        f"{cache.path}: holds {len(cache):,} pictures, asked for {len(images.ids):,} others"
        + (f" (not in it: {', '.join(only_asked)} …)" if only_asked else "")
    ]


def _lock(path: Path, flags: int) -> int:
    """Open and lock a file for this process; raises InputError when another one holds it."""
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened for writing: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(
            f"{path}: another process is writing this cache; wait for it or choose another --out"
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise InputError(f"{path}: this file system cannot lock files: {error.strerror}; choose another disk") from None
    return descriptor


def _create(path: Path, images: ImageTable, attributes: Mapping[str, Any], regions: int, channels: int) -> None:
    """Make the whole file under another name, every byte of it reserved, then give it its name."""
    needed, free = len(images.ids) * regions * channels * 2, shutil.disk_usage(path.parent).free
    room = f"{path}: needs {needed / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB free"
    if needed > free:
        raise InputError(room)
    part = path.with_name(f".{path.name}.new")
    descriptor = _lock(part, os.O_RDWR | os.O_CREAT)
    try:
        if path.exists():  # another process was faster
            part.unlink(missing_ok=True)
            return
        with h5py.File(part, "w", locking=False) as file:
            for key, value in attributes.items():
                file.attrs[key] = json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else value
            _strings(file, "image_id", images.ids)
            _strings(file, "image_path", [str(image_path) for image_path in images.paths])
            _reserve(file, "image_digest", (len(images.ids),), np.dtype(f"S{DIGEST_BYTES}"), zeros=True)
            _reserve(file, "done", (len(images.ids),), np.dtype(np.uint8), zeros=True)
            _reserve(file, "features", (len(images.ids), regions, channels), np.dtype(np.float16), zeros=False)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, part.stat().st_size)
        os.fsync(descriptor)
        part.replace(path)
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        raise InputError(f"{room}; it cannot be made: {error}") from None
    finally:
        os.close(descriptor)


def _strings(file: h5py.File, name: str, values: Sequence[str]) -> None:
    """A data set of UTF-8 strings of fixed length."""
    encoded = [value.encode() for value in values]
    length = max([1, *map(len, encoded)])
    file.create_dataset(name, data=np.array(encoded, dtype=h5py.string_dtype("utf-8", length)))


def _reserve(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], zeros: bool) -> None:
    """A contiguous data set whose place in the file is fixed now, so that its bytes can be written directly."""
    options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    options.set_layout(h5py.h5d.CONTIGUOUS)
    options.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    options.set_fill_time(h5py.h5d.FILL_TIME_ALLOC if zeros else h5py.h5d.FILL_TIME_NEVER)
    kind = h5py.h5t.py_create(dtype, logical=True)
    h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), options)


def _read_fully(file: Any, into: NDArray[np.float16]) -> int:
    """Fill an array from a file; returns how many bytes there were."""
    view = into.view(np.uint8).reshape(-1).data
    total = 0
    while total < len(view):
        count = file.readinto(view[total:])
        if not count:
            break
        total += count
    return total
