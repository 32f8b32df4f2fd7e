"""Features that other projects published, taken into a feature cache.

A new layout is one file with `open_files(paths)` and one line in `LAYOUTS`. What is written says honestly where it is
from: the encoder is "import:NAME", its weights and the preparation of the images are not known. So
`vqa features check` and `vqa predict`, which would have to encode images, refuse such a cache.

Legend: `N` some images, `I` all of them, `R` regions, `C` channels.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqa.data.dataset import ImageTable
from vqa.errors import InputError, unknown_name
from vqa.features.cache.imports import arrays, bottom_up_attention, cyanogenoid, hengyuan_hu, openvqa, vqa_lstm_cnn
from vqa.features.cache.imports.names import named
from vqa.features.cache.imports.source import PeerFeatures, Regions
from vqa.features.cache.reader import BOXES, GEOMETRY, IMPORTED, FeatureCache, dequantise, quantise
from vqa.features.cache.writer import (
    LARGEST_HALF,
    ROWS_AT_ONCE,
    WHERE,
    CacheWriter,
    require_room_for_geometry,
    require_writable,
)
from vqa.progress import console, progress_bar

AS_BOXES, AS_CHANNELS = GEOMETRIES = ("boxes", "channels")
STICKING_OUT = 0.05  # of the image's side, by which a box may end outside the image
SAME = 1e-3  # by which the numbers of one image may differ in two files, relative and absolute
ROWS_COMPARED = 16  # that are compared with what was imported before, when an import goes on


class Layout(NamedTuple):
    """One published layout.

    Attributes:
        open: opens the files that the user gives.
        boxes: whether the regions are boxes of a detector, of any number; else they are a grid or the whole image.
        layer: what was read, as the publisher describes it.
        origin: which network made the features, as the publisher describes it.
    """

    open: Callable[[Sequence[Path]], PeerFeatures]
    boxes: bool
    layer: str
    origin: str


ARRAYS = "arrays"
VISUAL_GENOME = "Faster R-CNN (ResNet-101) trained on Visual Genome"
LAYOUTS: dict[str, Layout] = {
    "bottom-up-attention": Layout(bottom_up_attention.open_files, True, "pool5_flat", VISUAL_GENOME),
    "hengyuan-hu": Layout(hengyuan_hu.open_files, True, "pool5_flat", VISUAL_GENOME),
    "openvqa": Layout(openvqa.open_files, True, "x", VISUAL_GENOME),
    "cyanogenoid": Layout(cyanogenoid.open_files, False, "layer4", "ResNet-152 with Caffe's ImageNet weights"),
    ARRAYS: Layout(arrays.open_files, False, "unknown", "a network that the files do not name"),
    "vqa-lstm-cnn": Layout(vqa_lstm_cnn.open_files, False, "fc7 after ReLU", "VGG-19 with Caffe's ImageNet weights"),
}


@dataclass(frozen=True)
class ImportReport:
    """What an import did: images in the cache, of them read by this call, and left out because they came twice."""

    images: int
    imported_now: int
    repeated: int
    seconds: float


def import_features(
    layout: str,
    files: Sequence[Path],
    out: Path,
    *,
    boxes: int | None = None,
    geometry: str = AS_BOXES,
    dtype: str = "float16",
    names: Sequence[str] = (),
    command: str = "",
) -> ImportReport:
    """Write the features of a peer's files into the cache `out`; goes on where an earlier call stopped.

    Images with fewer boxes than the cache has regions are filled up with rows of zeros, and `/region_count` says how
    many are real; of images with more, the first are taken. Where the boxes lie is in `/boxes`.

    Args:
        layout: a key of `LAYOUTS`.
        files: as the layout has them; large ones are read image by image.
        out: the cache, made or completed.
        boxes: regions of the cache; None takes the most that any image has.
        geometry: "boxes", or "channels", which also adds six channels to the features: left, top, right, bottom,
            width and height of the box as shares of the image.
        dtype: what is stored, "float16" or "int8".
        names: a data set's image ids, which the images get whose paths end alike, but for the file's ending and
            leading zeros (see `named`); none leaves COCO's number or the file's name without ending.
        command: what the user ran; stated in the cache.

    Raises:
        InputError: naming the file and item, when one is missing, damaged or of another layout, when numbers do not
            fit float16, when two different rows have one id, or when `out` holds something else.
    """
    begin = time.perf_counter()
    known = _layout(layout, files)
    if geometry not in GEOMETRIES:
        raise InputError(unknown_name("geometry", geometry, GEOMETRIES))
    glued = geometry == AS_CHANNELS
    require_writable(out)
    require_room_for_geometry(dtype, glued)
    peer = known.open(list(files))
    _require_something(peer, files[0])
    if names:
        peer = replace(peer, image_ids=_renamed(peer, names, files[0]))
    if layout == ARRAYS:  # boxes are what images have different numbers of
        known = known._replace(boxes=len(set(peer.regions_I.tolist())) > 1)
    regions = _region_count(known, peer, boxes, glued, files[0])
    chosen = _first_of_each(peer, bool(names))
    images = ImageTable(tuple(peer.image_ids[i] for i in chosen), tuple(peer.paths[i] for i in chosen))
    channels = peer.channels + (GEOMETRY if glued else 0)
    attributes = _attributes(layout, known, files, glued, command)
    where = [name for name, there in zip(WHERE, (known.boxes, peer.boxed), strict=True) if there]
    console.print(f"{len(images.ids):,} images, first {', '.join(images.ids[:3])}: {regions} x {channels}")
    if known.boxes and not peer.boxed:
        console.print("the files do not say where every region lies, so the cache has no /boxes")
    with CacheWriter(out, images, attributes, regions, channels, dtype, where=where) as writer:
        before = int(writer.done_I.sum())
        run = _Import(peer, chosen, (regions, channels), writer)
        run.compare_done(out)
        with writer.interruptible(command):
            run.all_rows()
        now = int(writer.done_I.sum()) - before
    return ImportReport(len(chosen), now, len(peer.image_ids) - len(chosen), time.perf_counter() - begin)


def _layout(layout: str, files: Sequence[Path]) -> Layout:
    """The layout of that name; raises InputError for an unknown one, and for files that are not there."""
    if layout not in LAYOUTS:
        raise InputError(unknown_name("layout", layout, LAYOUTS))
    missing = [path for path in files if not path.exists()]
    if missing:
        raise InputError(f"{missing[0]}: no such file or folder")
    return LAYOUTS[layout]


def _require_something(peer: PeerFeatures, path: Path) -> None:
    """Raises InputError for files that hold nothing, and for images without an id."""
    if not peer.image_ids:
        raise InputError(f"{path}: holds no images")
    if not peer.channels or not peer.regions_I.max():
        raise InputError(f"{path}: its images have {int(peer.regions_I.max())} regions of {peer.channels} channels")
    if "" in peer.image_ids:
        place = peer.image_ids.index("")
        raise InputError(f"{peer.paths[place]}: its image {place + 1:,} has no id")


def _renamed(peer: PeerFeatures, names: Sequence[str], path: Path) -> tuple[str, ...]:
    """The ids as the data set has them; images that it does not have keep theirs.

    Raises:
        InputError: two of the data set's ids cannot be told apart, or it has none of the images.
    """
    wanted, found = named(peer.given or peer.image_ids, names, path)
    if not found:
        raise InputError(
            f"{path}: none of its images (first {', '.join(peer.image_ids[:3])}) is in the data set (first "
            f"{', '.join(names[:3])})"
        )
    console.print(f"{found:,} of the data set's {len(set(names)):,} images are in the files")
    kept = peer.given or peer.image_ids  # not cut, so that it is no other image's id
    taken = set(wanted)
    return tuple(
        new or (old if old not in taken else given)
        for new, old, given in zip(wanted, peer.image_ids, kept, strict=True)
    )


def _first_of_each(peer: PeerFeatures, names: bool) -> list[int]:
    """The images that are imported: each id once.

    Raises:
        InputError: two different rows have one id.
    """
    first: dict[str, int] = {}
    for image, name in enumerate(peer.image_ids):
        other = first.setdefault(name, image)
        if other != image and not _same(peer.read(other), peer.read(image)):
            where = [f"{peer.paths[one]}{f' ({peer.given[one]})' if peer.given else ''}" for one in (other, image)]
            hint = "" if names else "; name the data set (--data, --format, --split), so that folders tell them apart"
            raise InputError(f"{where[0]} and {where[1]}: different features of one image, {name}{hint}")
    return sorted(first.values())


def _same(one: Regions, other: Regions) -> bool:
    """Whether two rows hold the same features, as float16 would keep them."""
    shapes = one.feature_RC.shape == other.feature_RC.shape
    return shapes and np.allclose(one.feature_RC, other.feature_RC, rtol=SAME, atol=SAME)


def _region_count(known: Layout, peer: PeerFeatures, boxes: int | None, geometry: bool, path: Path) -> int:
    most = int(peer.regions_I.max())
    if not known.boxes and (boxes or geometry):
        raise InputError(f"{path}: this layout has no boxes, so neither their number nor their geometry can be chosen")
    if boxes is not None and boxes < 1:
        raise InputError(f"{boxes} boxes: must be at least 1")
    if known.boxes:
        console.print(f"boxes an image: {int(peer.regions_I.min())} to {most}; regions in the cache: {boxes or most}")
    return boxes or most


def _attributes(layout: str, known: Layout, files: Sequence[Path], geometry: bool, command: str) -> dict[str, Any]:
    """What the cache states: what the publisher says, and that the rest is not known."""
    return {
        "encoder": f"{IMPORTED}{layout}",
        "layer": known.layer,
        "image_size": 0,
        "weights_sha256": "unknown",
        "weights_origin": f"imported from {', '.join(path.name for path in files)}; {known.origin}, as published",
        "preprocessing": {
            # this key is part of what makes two caches comparable: under another name, old ones could not be continued
            "pictures": "as the publisher prepared them; the files do not say how",
            "regions": BOXES if known.boxes else "grid",
            "geometry": geometry,
        },
        "command": command,
    }


class _Import:
    """One pass over the images that the cache does not hold yet."""

    def __init__(self, peer: PeerFeatures, chosen: list[int], shape: tuple[int, int], writer: CacheWriter) -> None:
        self.peer, self.chosen, self.shape, self.writer = peer, chosen, shape, writer

    def compare_done(self, out: Path) -> None:
        """Refuse to go on with a cache that was imported from other files."""
        done = np.flatnonzero(self.writer.done_I)
        row_N = np.sort(np.random.default_rng(0).permutation(done)[:ROWS_COMPARED])
        if not len(row_N):
            return
        cache = FeatureCache(out)
        expected_NRC, count_N, box_NR4 = self._read(row_N)
        if cache.scale_I is not None:
            expected_NRC = dequantise(*quantise(expected_NRC), torch.float16)
        same = torch.equal(cache.read(row_N), expected_NRC.half())
        same = same and (cache.count_I is None or torch.equal(cache.count_I[torch.from_numpy(row_N)], count_N))
        if not same or (cache.boxed and not torch.equal(cache.read_boxes(row_N), box_NR4)):
            raise InputError(f"{out}: holds the features of other files; remove it, or choose another --out")

    def all_rows(self) -> None:
        """Read, check and write what is missing."""
        todo = np.flatnonzero(~self.writer.done_I)
        with progress_bar() as bar:
            task = bar.add_task("Importing", total=len(self.chosen), completed=len(self.chosen) - len(todo), note="")
            for start in range(0, len(todo), ROWS_AT_ONCE):
                row_N = todo[start : start + ROWS_AT_ONCE]
                feature_NRC, count_N, box_NR4 = self._read(row_N)
                no_digest = [""] * len(row_N)  # no image was seen
                self.writer.write(row_N, feature_NRC, no_digest, count_N, box_NR4)
                self.writer.commit_if_due()
                bar.update(task, advance=len(row_N))
        self.writer.commit()

    def _read(self, row_N: NDArray[np.integer]) -> tuple[Tensor, Tensor, Tensor]:
        """Some images' features, float32 `[N, R, C]`, how many regions are real, and their boxes `[N, R, 4]`.

        Features and boxes are zeros where an image has fewer regions, and boxes where the file has none.
        """
        feature_NRC = np.zeros((len(row_N), *self.shape), dtype=np.float32)
        count_N, box_NR4 = torch.ones(len(row_N), dtype=torch.int64), torch.zeros(len(row_N), self.shape[0], 4)
        for place, row in enumerate(row_N.tolist()):
            image = self.chosen[row]
            found = self.peer.read(image)
            count = min(self.shape[0], len(found.feature_RC))
            feature_NRC[place, :count, : self.peer.channels] = found.feature_RC[:count]
            count_N[place] = max(count, 1)  # one of zeros stands for none
            if "boxes" in self.writer.holds:
                box_NR4[place, :count] = torch.from_numpy(self._boxes(image, found)[:count])
            if self.shape[1] > self.peer.channels:
                if found.geometry_R6 is None or found.geometry_R6.shape != (len(found.feature_RC), GEOMETRY):
                    raise InputError(f"{self.peer.paths[image]}: image {self._name(image)} has no boxes")
                feature_NRC[place, :count, self.peer.channels :] = found.geometry_R6[:count]
            largest = np.abs(feature_NRC[place]).max()
            if not largest <= LARGEST_HALF:  # also False for NaN
                raise InputError(
                    f"{self.peer.paths[image]}: image {self._name(image)} has {largest:g} among its features, "
                    f"and float16 ends at {LARGEST_HALF:g}"
                )
        return torch.from_numpy(feature_NRC), count_N, box_NR4

    def _boxes(self, image: int, found: Regions) -> NDArray[np.float32]:
        """The corners of an image's boxes; what sticks out a little, as detectors' boxes do, is cut off."""
        given_R6 = found.geometry_R6
        if given_R6 is None or given_R6.shape != (len(found.feature_RC), GEOMETRY):
            raise InputError(f"{self.peer.paths[image]}: image {self._name(image)} has no boxes")
        corner_R4 = given_R6[:, :4].astype(np.float32)
        inside_R = ((corner_R4 >= -STICKING_OUT) & (corner_R4 <= 1 + STICKING_OUT)).all(axis=1)  # False for NaN
        right_R = inside_R & (corner_R4[:, 0] <= corner_R4[:, 2]) & (corner_R4[:, 1] <= corner_R4[:, 3])
        if not right_R.all():
            numbers = ", ".join(f"{number:g}" for number in corner_R4[right_R.argmin()])
            raise InputError(
                f"{self.peer.paths[image]}: image {self._name(image)} has a box at {numbers} (x1, y1, x2, y2 as shares "
                "of its width and height), which lies outside the image or is turned round"
            )
        return corner_R4.clip(0, 1)

    def _name(self, image: int) -> str:
        return self.peer.image_ids[image]
