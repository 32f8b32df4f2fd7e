"""MILVLG/openvqa and mcan-vqa: one `.npz` an image, `x` `[C, R]` (channels first), `bbox` `[R, 4]` in pixels."""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vqa.errors import InputError
from vqa.features.cache.imports.source import (
    MOST_BYTES,
    NUMERIC,
    PeerFeatures,
    Regions,
    box_geometry,
    image_id,
    naming,
    npz_head,
    require_small,
)
from vqa.progress import progress_bar

NAMES = ("x", "bbox", "image_w", "image_h")


def open_files(paths: Sequence[Path]) -> PeerFeatures:
    """Open folders with `.npz` files (at any depth), or the files themselves."""
    found = [(file, path) for path in paths for file in (sorted(path.rglob("*.npz")) if path.is_dir() else [path])]
    files = [file for file, _ in found]
    if not files:
        raise InputError(f"{paths[0]}: no .npz file in this folder")
    with progress_bar() as bar:
        task = bar.add_task("Looking at the files", total=len(files), note="")
        shapes = []
        for file in files:
            shapes.append(_shape(file))
            bar.update(task, advance=1)
    channels, regions, boxed = zip(*shapes, strict=True)
    other = next((i for i, count in enumerate(channels) if count != channels[0]), None)
    if other is not None:
        raise InputError(f"{files[other]}: {channels[other]} channels, {files[0]} has {channels[0]}")
    return PeerFeatures(
        image_ids=tuple(image_id(file.name) for file in files),
        paths=tuple(files),
        regions_I=np.array(regions),
        channels=channels[0],
        read=lambda image: _read(files[image]),
        boxed=all(boxed),
        given=tuple((file.name if file == path else file.relative_to(path).as_posix()) for file, path in found),
    )


def _shape(path: Path) -> tuple[int, int, bool]:
    """(C, R), from the head of the array alone, and whether there are boxes."""
    with naming(path, "no .npz file with an array x, or damaged"), zipfile.ZipFile(path) as archive:
        shape, kind = npz_head(archive, "x")
        boxed = {f"{name}.npy" for name in NAMES} <= {*archive.namelist()}
    if len(shape) != 2 or min(shape) < 0 or kind.kind not in NUMERIC:
        raise InputError(f"{path}: x is {kind} {shape}, expected numbers [channels, boxes]")
    require_small(path, "x", shape, kind)
    return int(shape[0]), int(shape[1]), boxed


def _read(path: Path) -> Regions:
    with naming(path, "damaged"), np.load(path, allow_pickle=False) as arrays:
        for name in {*NAMES} & set(arrays.files):
            shape, kind = npz_head(arrays.zip, name)
            if math.prod(shape) * kind.itemsize > MOST_BYTES or kind.kind not in NUMERIC:
                raise InputError(f"{path}: {name} is {kind} {shape}, expected numbers of one image")
        feature_RC = arrays["x"].T
        if not set(NAMES) <= set(arrays.files):
            return Regions(feature_RC)
        box_R4 = arrays["bbox"].reshape(-1, 4)[: len(feature_RC)]
        return Regions(feature_RC, box_geometry(box_R4, float(arrays["image_w"]), float(arrays["image_h"])))
