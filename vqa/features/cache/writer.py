"""Writing the feature cache so that a process that dies at any moment loses only its last seconds.

The file is made whole, with every row reserved, and takes its name in one step. From then on only bytes inside the
data sets change, first the features, then the flags that vouch for them.

Legend: `N` some rows, `R` regions, `C` channels.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from vqa.data.dataset import ImageTable
from vqa.errors import InputError, unknown_name
from vqa.features.cache.attributes import FORMAT_VERSION
from vqa.features.cache.reader import (
    STORED_TYPES,
    FeatureCache,
    differences,
    dtype_name,
    identity,
    quantise,
)
from vqa.features.cache.schema import BOX, DIGEST_BYTES
from vqa.features.precision import AS_BEFORE, STATED_AS
from vqa.files import COMMIT_SECONDS
from vqa.locks import Lock, acquire
from vqa.progress import console
from vqa.runtime.memory import human_bytes
from vqa.runtime.stopping import interrupting_signals

WHERE = ("region_count", "boxes")  # the data sets that say which regions are real, and where they lie
LARGEST_HALF = float(np.finfo(np.float16).max)
ROWS_AT_ONCE = 32  # read, changed and written together, where features come from another file


class CacheWriter:
    """A cache opened for writing, by one process at a time; made when it is not there, completed when it is.

    Use as a context manager. `write` puts features in place, `commit` vouches for them.

    Attributes:
        done_I: bool, the rows that hold features already.
        holds: which of `WHERE` the file has.
    """

    def __init__(
        self,
        path: Path,
        images: ImageTable,
        attributes: Mapping[str, Any],
        regions: int,
        channels: int,
        dtype: str = "float16",
        extra: Mapping[str, NDArray[Any]] | None = None,
        where: Collection[str] = (),
    ) -> None:
        """Make the file, or open the one that is there after checking that it is the same cache.

        Args:
            path: the file.
            images: one row each.
            attributes: the encoder's `attributes()` and more, such as "command".
            regions, channels: `R` and `C`.
            dtype: what is stored, "float16", or "int8" with one scale an image.
            extra: more arrays by path in the file, written once when it is made, such as an encoder's parameters.
            where: which of `WHERE` a new file gets. One that was begun without them is completed without them.

        Raises:
            InputError: when another process writes the file, when the file that is there has other attributes or
                images (it is left as it is), or when the disk has no room for it.
        """
        if dtype not in STORED_TYPES:
            raise InputError(unknown_name("type of stored features", dtype, STORED_TYPES))
        self.path = path
        self._pending: list[tuple[NDArray[np.int64], list[str]]] = []
        self._committed = time.perf_counter()
        require_writable(path)
        if not path.exists():
            stated = {"format_version": FORMAT_VERSION, **attributes}
            _create(path, images, stated, (regions, channels), dtype, extra or {}, where)
        self._lock = _lock(path)
        self._descriptor = os.open(path, os.O_RDWR)
        try:
            cache = FeatureCache(path)
            stated = {STATED_AS: str(AS_BEFORE)} | cache.attributes
            expected = identity(attributes)
            if STATED_AS in attributes:  # the precision neither, or the rows would not be one encoder's to the bit
                expected[STATED_AS] = attributes[STATED_AS]
            wrong = differences(stated, expected, path)
            if (cache.regions, cache.channels) != (regions, channels):
                wrong.append(
                    f"{path}: holds {cache.regions} x {cache.channels} an image, expected {regions} x {channels}"
                )
            if cache.dtype != STORED_TYPES[dtype]:
                wrong.append(f"{path}: holds {dtype_name(cache.dtype)}, expected {dtype}")
            wrong += [f"{path}: holds /{name}, which these features lack" for name in WHERE if name in cache.places
                      and name not in where]  # fmt: skip
            wrong += _other_images(cache, images)
            if wrong:
                raise InputError("\n".join([*wrong, "It was left as it is; choose another --out or remove it."]))
            self._done_at, self._digest_at = cache.offsets["done"], cache.offsets["image_digest"]
        except BaseException:
            self._let_go()
            raise
        self._places, self._count_type = cache.places, cache.count_type
        self._shape, self._int8 = (regions, channels), dtype == "int8"
        self.done_I = cache.done_I.copy()
        self.holds = tuple(name for name in WHERE if name in cache.places)
        if lacking := [f"/{name}" for name in where if name not in self.holds]:
            console.print(f"{path}: was begun without {' and '.join(lacking)}, and is completed so")

    def write(
        self,
        row_N: NDArray[np.int64],
        feature_NRC: torch.Tensor,
        digests: Sequence[str],
        count_N: torch.Tensor | None = None,
        box_NR4: torch.Tensor | None = None,
    ) -> None:
        """Put features in their rows; they count only after the next `commit`.

        Args:
            row_N: rows of the file.
            feature_NRC: floating point, on the CPU; stored in the file's type.
            digests: SHA-256 of each image's file, in hexadecimal.
            count_N: int64, how many regions are real, the first ones; None: all. Where the file does not hold it,
                it is left out, and so are boxes.
            box_NR4: float32, where each region lies; zeros where there is none.

        Raises:
            InputError: when the disk is full.
        """
        if feature_NRC.shape != (len(row_N), *self._shape) or not feature_NRC.is_floating_point():
            raise ValueError(f"features {feature_NRC.dtype} {tuple(feature_NRC.shape)} do not fit {self._shape}")
        parts = {"features": feature_NRC if self._int8 else feature_NRC.half()}
        if self._int8:
            parts["features"], parts["scale"] = quantise(feature_NRC)
        if "region_count" in self.holds:
            count_N = torch.full((len(row_N),), self._shape[0]) if count_N is None else count_N
            parts["region_count"] = count_N.to(self._count_type)
        if "boxes" in self.holds:
            if box_NR4 is None or box_NR4.shape != (len(row_N), self._shape[0], BOX):
                raise ValueError(f"boxes of {self._shape[0]} regions are needed for {self.path}")
            parts["boxes"] = box_NR4.float()
        for name, values in parts.items():
            offset, size = self._places[name]
            for row, value in zip(row_N.tolist(), values.contiguous().numpy(), strict=True):
                self._put(value.tobytes(), offset + row * size)
        self._pending.append((row_N, list(digests)))

    def copy(self, source: int, rows: Sequence[int], digest: str) -> None:
        """Give `rows` what row `source` holds, which was written before; they count after the next `commit`.

        Raises:
            InputError: when the disk is full, or the file cannot be read.
        """
        stored = {name: self._get(size, offset + source * size) for name, (offset, size) in self._places.items()}
        self.write_stored(rows, stored, digest)

    def write_stored(self, rows: Sequence[int], stored: Mapping[str, bytes], digest: str) -> None:
        """Put one image's features and all beside them in `rows`, as `FeatureCache.stored` of a cache alike gives them.

        Raises:
            InputError: when the disk is full.
        """
        for name, (offset, size) in self._places.items():
            for row in rows:
                self._put(stored[name], offset + row * size)
        self._pending.append((np.array(rows, dtype=np.int64), [digest] * len(rows)))

    def commit(self) -> None:
        """Bring everything written so far to the disk, then flag its rows as done.

        Raises:
            InputError: when the disk refuses; what was written since the last commit does not count then.
        """
        if not self._pending:
            return
        for row_N, digests in self._pending:
            for row, digest in zip(row_N.tolist(), digests, strict=True):
                self._put(digest.encode("ascii"), self._digest_at + row * DIGEST_BYTES)
        self._to_disk()
        for row_N, _ in self._pending:
            for row in row_N.tolist():
                self._put(b"\x01", self._done_at + row)
                self.done_I[row] = True
        self._pending.clear()

    def commit_if_due(self) -> None:
        """Commit where the last time is `COMMIT_SECONDS` ago; raises InputError as `commit`."""
        if time.perf_counter() - self._committed > COMMIT_SECONDS:
            self.commit()
            self._committed = time.perf_counter()

    @contextmanager
    def interruptible(self, command: str) -> Iterator[None]:
        """Where Ctrl-C or another signal (`vqa.runtime.stopping`) ends the block, keep what was written and say how on.

        Args:
            command: what the user ran; "" for a program that calls again what it called.
        """
        try:
            with interrupting_signals():
                yield
        except KeyboardInterrupt as error:
            self.commit()
            done = f"{int(self.done_I.sum()):,} of {len(self.done_I):,} images are in {self.path}"
            by = f" by {error}" if str(error) else ""
            console.print(f"Interrupted{by}: {done}. Go on with: {command or 'the same command'}")
            raise

    def _to_disk(self) -> None:
        """Wait until the disk has all that was written."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._pending.clear()  # a second fsync would succeed without having written anything
            raise self._failure(error) from None

    def _get(self, count: int, offset: int) -> bytes:
        """Read what was written before."""
        content = os.pread(self._descriptor, count, offset)
        if len(content) != count:
            raise InputError(f"{self.path}: truncated while it was written")
        return content

    def _put(self, content: bytes, offset: int) -> None:
        """Write all of `content` at a place of the file."""
        try:
            while content:
                written = os.pwrite(self._descriptor, content, offset)
                content, offset = content[written:], offset + written
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError) -> InputError:
        return InputError(f"{self.path}: cannot be written: {error.strerror}; what was done before is kept")

    def close(self) -> None:
        """Commit, flags too are on the disk then, and let other processes write the file."""
        try:
            self.commit()
            self._to_disk()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        os.close(self._descriptor)
        self._lock.release()

    def __enter__(self) -> "CacheWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require_room_for_geometry(dtype: str, geometry: bool) -> None:
    """Raises InputError when box geometry (0 to 1) would share int8's one scale an image with far larger numbers."""
    if geometry and dtype == "int8":
        raise InputError(
            "int8 has one scale an image, in which the boxes' geometry (0 to 1) is lost beside large features; "
            "store float16, or leave out the geometry"
        )


def require_writable(path: Path) -> None:
    """Make the folder of a cache that is to be written; ask before long work, whose result would have no place.

    Raises:
        InputError: when no file can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give the name of a file in it")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise InputError(f"{path}: cannot be opened for writing: Permission denied")
    except OSError as error:
        raise InputError(f"{path}: cannot be opened for writing: {error.strerror}") from None


def _other_images(cache: FeatureCache, images: ImageTable) -> list[str]:
    """A sentence when the file is about other images, or the same in another order."""
    if cache.image_ids == images.ids:
        return []
    held = set(cache.image_ids)
    lacking = [name for name in images.ids if name not in held]
    return [
        f"{cache.path}: holds {len(cache):,} images, asked for {len(images.ids):,}"
        + (
            f", of which it lacks {len(lacking):,}, first {', '.join(lacking[:3])}"
            if lacking
            else " of the same, or in another order"
        )
    ]


def _lock(path: Path) -> Lock:
    """Lock a file for this process; raises InputError when another one holds it."""
    held = acquire(path)
    if held is None:
        raise InputError(f"{path}: another process is writing this cache; wait for it or choose another --out")
    return held


def _create(
    path: Path,
    images: ImageTable,
    attributes: Mapping[str, Any],
    region_shape: tuple[int, int],
    dtype: str,
    extra: Mapping[str, NDArray[Any]],
    where: Collection[str],
) -> None:
    """Make the whole file under another name, every byte of it reserved, then give it its name."""
    shape = (len(images.ids), *region_shape)
    beside = {"region_count": (shape[:1], "<i4"), "boxes": ((*shape[:2], BOX), "<f4")}
    reserved = {name: beside[name] for name in where} | ({"scale": (shape[:1], "<f4")} if dtype == "int8" else {})
    sizes = [(shape, dtype), *reserved.values()]
    needed, free = (
        sum(math.prod(size) * np.dtype(kind).itemsize for size, kind in sizes),
        shutil.disk_usage(path.parent).free,
    )
    room = f"{path}: needs {human_bytes(needed)}, the disk has {human_bytes(free)} free"
    if needed > free:
        raise InputError(room)
    part = path.with_name(f".{path.name}.new")
    held = _lock(part)
    descriptor = os.open(part, os.O_RDWR)
    try:
        if path.exists():  # another process was faster
            part.unlink(missing_ok=True)
            return
        # HDF5 that meets a full disk says so several times, once from where nobody can catch it
        _try_room(descriptor, needed + _beside_features(images, attributes, extra))
        with h5py.File(part, "w", locking=False) as file:
            for key, value in attributes.items():
                file.attrs[key] = json.dumps(value, sort_keys=True) if isinstance(value, Mapping) else value
            _strings(file, "image_id", images.ids)
            _strings(file, "image_path", [str(image_path) for image_path in images.paths])
            _reserve(file, "image_digest", (len(images.ids),), np.dtype(f"S{DIGEST_BYTES}"), zeros=True)
            _reserve(file, "done", (len(images.ids),), np.dtype(np.uint8), zeros=True)
            for name, (size, kind) in reserved.items():
                _reserve(file, name, size, np.dtype(kind), zeros=True)
            for name, array in extra.items():
                file.create_dataset(name, data=array)
            _reserve(file, "features", shape, np.dtype(dtype), zeros=False)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, part.stat().st_size)
        os.fsync(descriptor)
        part.replace(path)
    except UnicodeEncodeError as error:
        part.unlink(missing_ok=True)
        raise InputError(
            f"{path}: cannot state {error.object!r}, which is no UTF-8; rename that file or folder"
        ) from None
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        raise InputError(f"{room}; it cannot be made: {getattr(error, 'strerror', None) or error}") from None
    finally:
        os.close(descriptor)
        held.release()


HDF5_BYTES = 64 << 10  # of a file without its data, rather more


def _beside_features(images: ImageTable, attributes: Mapping[str, Any], extra: Mapping[str, NDArray[Any]]) -> int:
    """About how many bytes a file takes beside its features, rather more."""
    texts = [max((len(str(one).encode()) for one in names), default=1) for names in (images.ids, images.paths)]
    each = sum(texts) + DIGEST_BYTES + 1
    stated = sum(len(str(value)) for value in attributes.values())
    return HDF5_BYTES + each * len(images.ids) + stated + sum(array.nbytes for array in extra.values())


def _try_room(descriptor: int, size: int) -> None:
    """Raise OSError where a file cannot grow to `size` bytes; it is as empty afterwards as before."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, max(1, size))
        finally:
            os.ftruncate(descriptor, 0)


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
