"""The feature cache: one HDF5 file a set of images (format: `features_cache/README.md`).

Legend: `N` some rows, `I` all rows of the file, `R` regions, `C` channels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqa.data.images import STATED, Framing
from vqa.errors import InputError
from vqa.features.cache.schema import BOX, read_header

# Attributes that must be equal for two features to be comparable; the others say how the file came about.
IDENTITY = ("format_version", "encoder", "layer", "image_size", "weights_sha256", "preprocessing")
SPAN_BYTES = 64 << 20  # the most that one read takes
IMPORTED = "import:"  # how the encoder's name begins where another project's files were imported
GEOMETRY = 6  # channels of a box: left, top, right, bottom, width, height, each a share of the image's side
# what publishers' code does, where their files do not say it
FRAMED_IMPORTS = {f"{IMPORTED}cyanogenoid": Framing("centre-crop", 448 / 512)}
BOXES = "boxes"  # what `preprocessing` says under "regions" where they are a detector's boxes and no grid
OF_REGIONS = ("features", "scale", "region_count", "boxes")  # the data sets that an encoder fills
STORED_TYPES = {"float16": torch.float16, "int8": torch.int8}


class FeatureCache:
    """A cache opened for reading.

    Attributes:
        path: the file.
        attributes: the root attributes, `preprocessing` as a dict.
        image_ids: one id a row.
        image_paths: where each image was read, "" where the file does not say.
        image_digests: SHA-256 of each image's file, "" where the row is not done.
        done_I: bool, the rows that hold features.
        regions, channels: `R` and `C`.
        dtype: what is stored, torch.float16 or torch.int8.
        scale_I: float32, by which a row's int8 numbers are multiplied; None for float16.
        count_I: int64, how many regions of a row are real, the first ones; None where the file does not say: all are.
        count_type: of the counts in the file.
        boxed: whether the file says where each region lies.
        offset: where `/features` begins in the file, in bytes; `offsets` of every data set.
        places: where the data sets that describe an image's regions begin, and the bytes of a row of each.
    """

    def __init__(self, path: Path) -> None:
        """Open and check the file.

        Raises:
            InputError: when it is missing, truncated, or no feature cache of this version; lists all that is wrong.
        """
        self.path = path
        if path.is_dir():
            raise InputError(f"{path}: is a folder, not a feature cache")
        if not path.is_file():
            raise InputError(f"{path}: no such feature cache; make it with `vqa features extract`")
        header = read_header(path)
        self.attributes, self.offsets = header.attributes, header.offsets
        self.image_ids, self.image_paths = header.image_ids, header.image_paths
        self.image_digests = header.image_digests
        self.done_I = header.done_I
        self.scale_I = None if header.scale_I is None else torch.from_numpy(header.scale_I)
        self.count_I = None if header.count_I is None else torch.from_numpy(header.count_I)
        self.count_type = torch.int64 if header.places.get("region_count", (0, 0))[1] == 8 else torch.int32
        self.boxed = "boxes" in header.offsets
        of_regions = (name for name in OF_REGIONS if name in header.places)
        self.places = {name: header.places[name] for name in of_regions if name != "scale" or self.scale_I is not None}
        self.offset = header.offsets["features"]
        self.dtype, self._numpy_dtype = STORED_TYPES[header.dtype.name], header.dtype
        _, self.regions, self.channels = header.shape
        self.row_bytes = self.regions * self.channels * self.dtype.itemsize
        self._row_of = {image_id: row for row, image_id in enumerate(self.image_ids)}

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def completing_command(self) -> str:
        """What the user runs to fill the rows that are not done."""
        return self.attributes.get("command") or f"vqa features extract … --out {self.path}"

    def find(self, image_ids: Sequence[str]) -> NDArray[np.int64]:
        """The row of each image that is there and done, else -1."""
        row_N = np.fromiter((self._row_of.get(i, -1) for i in image_ids), dtype=np.int64, count=len(image_ids))
        return np.where((row_N >= 0) & self.done_I[row_N], row_N, -1) if len(self) else row_N

    def rows(self, image_ids: Sequence[str]) -> NDArray[np.int64]:
        """The row of each image.

        Raises:
            InputError: when images are missing from the file or not extracted yet; names the first of them, says
                how many there are, and gives the command that completes the file.
        """
        row_N = self.find(image_ids)
        lacking = [image_ids[i] for i in np.flatnonzero(row_N < 0).tolist()]
        absent = [image_id for image_id in lacking if image_id not in self._row_of]
        if absent:
            raise InputError(
                f"{self.path}: does not hold {len(absent):,} of {len(image_ids):,} images, first: "
                f"{', '.join(absent[:5])}\nIt was made by: {self.completing_command}"
            )
        if lacking:
            raise InputError(
                f"{self.path}: {len(lacking):,} of {len(image_ids):,} images are not extracted yet, first: "
                f"{', '.join(lacking[:5])}\nComplete it with: {self.completing_command}"
            )
        return row_N

    def read(self, row_N: NDArray[np.integer]) -> torch.Tensor:
        """The features of some rows, in the order asked for: float16 `[N, R, C]`."""
        out_NRC = torch.empty((len(row_N), self.regions, self.channels), dtype=torch.float16)
        self.read_into(np.asarray(row_N, dtype=np.int64), np.arange(len(row_N)), out_NRC)
        return out_NRC

    def read_into(self, row_N: NDArray[np.int64], place_N: NDArray[np.integer], out: torch.Tensor) -> None:
        """Copy row `row_N[i]` of the file to `out[place_N[i]]`, reading the file once, from front to back.

        `out` is `[any, R, C]` on any device; a type other than the stored one is converted on the way, int8 by each
        row's scale.
        """
        order = np.argsort(row_N, kind="stable")
        sorted_row_N, sorted_place_N = row_N[order], torch.from_numpy(np.asarray(place_N, dtype=np.int64)[order])
        most = max(1, SPAN_BYTES // max(1, self.row_bytes))
        buffer = np.empty((min(most, len(self)), self.regions, self.channels), dtype=self._numpy_dtype)
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
                if self.scale_I is not None and out.dtype != torch.int8:
                    found = dequantise(found, self.scale_I[sorted_row_N[start:stop]].to(out.device), out.dtype)
                out.index_copy_(0, sorted_place_N[start:stop].to(out.device), found.to(out.dtype))
                start = stop

    def read_boxes(self, row_N: NDArray[np.integer]) -> torch.Tensor:
        """Where the regions of some rows lie, in the order asked for: float32 `[N, R, 4]`, only where `boxed`."""
        row_N = np.asarray(row_N, dtype=np.int64)
        if not len(row_N):
            return torch.empty(0, self.regions, BOX)
        first, count, each = int(row_N.min()), int(np.ptp(row_N)) + 1, self.regions * BOX
        offset = self.offsets["boxes"] + first * each * np.dtype("<f4").itemsize
        number_M = np.fromfile(self.path, "<f4", count * each, offset=offset)
        if len(number_M) != count * each:
            raise InputError(f"{self.path}: truncated: its boxes cannot be read")
        return torch.from_numpy(number_M.reshape(count, self.regions, BOX)[row_N - first])

    def stored(self, row: int) -> dict[str, bytes]:
        """One row of each data set that describes its regions, as it lies in the file, by name."""
        found: dict[str, bytes] = {}
        with self.path.open("rb", buffering=0) as file:
            for name, (offset, size) in self.places.items():
                file.seek(offset + row * size)
                found[name] = file.read(size)
                if len(found[name]) != size:
                    raise InputError(f"{self.path}: truncated: row {row} cannot be read")
        return found

    def contradictions(self, expected: Mapping[str, Any]) -> list[str]:
        """One sentence for each expected attribute that this file states otherwise; empty when they agree."""
        return differences(self.attributes, expected, self.path)


def identity(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What others must state as these attributes do to be comparable.

    A part of the decoding, or of the crop, that is not stated must not be stated there either: it is a way of its own.
    """
    found = {key: attributes[key] for key in IDENTITY if key in attributes}
    if "preprocessing" in found:
        found["preprocessing"] = dict.fromkeys((*STATED, "resize_to")) | found["preprocessing"]
    return found


def grid_of(attributes: Mapping[str, Any], regions: int) -> tuple[int, int] | None:
    """The (rows, columns) in which regions lie on the image; None for boxes of a detector or a single region."""
    return None if attributes["preprocessing"].get("regions") == BOXES else square_grid(regions)


def frame_of(attributes: Mapping[str, Any]) -> Framing:
    """Which square of an image the regions of a `grid_of` lie on, by a cache's attributes."""
    if attributes["encoder"] in FRAMED_IMPORTS:
        return FRAMED_IMPORTS[attributes["encoder"]]
    stated = attributes["preprocessing"]
    edge = stated.get("resize_to")
    return Framing(stated.get("resize", ""), 1.0 if edge is None else min(1.0, attributes["image_size"] / edge))


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


def different_places(cache: FeatureCache, first: FeatureCache) -> list[str]:
    """One clause for each data set about regions that only one of two caches holds: their meanings differ."""
    found = []
    for name in ("region_count", "boxes"):
        if (name in cache.places) != (name in first.places):
            with_it, without = (cache, first) if name in cache.places else (first, cache)
            found.append(
                f"{with_it.path} holds /{name} and {without.path} does not; make the latter anew, or write that data "
                "set into it"
            )
    return found


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a type as torch, numpy and users have it in common, e.g. "float16"."""
    return str(dtype).removeprefix("torch.")


def quantise(feature_NRC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Features as int8 `[N, R, C]` and one float32 scale an image: its largest number becomes 127."""
    scale_N = feature_NRC.float().abs().flatten(1).amax(1) / 127
    divisor_N = torch.where(scale_N > 0, scale_N, torch.ones_like(scale_N))
    return (feature_NRC.float() / divisor_N[:, None, None]).round().to(torch.int8), scale_N


def dequantise(stored_NRC: torch.Tensor, scale_N: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Int8 features times their images' scales, multiplied in float32 and rounded once to `dtype`."""
    return stored_NRC.float().mul_(scale_N[:, None, None]).to(dtype)


def _read_fully(file: Any, into: NDArray[Any]) -> int:
    """Fill an array from a file; returns how many bytes there were."""
    view = into.view(np.uint8).reshape(-1).data
    total = 0
    while total < len(view):
        count = file.readinto(view[total:])
        if not count:
            break
        total += count
    return total


def square_grid(regions: int) -> tuple[int, int] | None:
    """The (rows, columns) of a square grid of `regions`, or None when they do not fill a square or are only one.

    >>> square_grid(49), square_grid(36 + 1), square_grid(1)
    ((7, 7), None, None)
    """
    side = round(regions**0.5)
    return (side, side) if side > 1 and side * side == regions else None
