"""Cyanogenoid/pytorch-vqa: HDF5 with `features` `[images, C, H, W]` float16 and the COCO numbers in `ids`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vqa.errors import InputError
from vqa.features.cache.imports.source import PeerFeatures, Regions, naming, open_hdf5


def open_files(paths: Sequence[Path]) -> PeerFeatures:
    """Open one `.h5` file."""
    if len(paths) > 1:
        raise InputError(f"{paths[1]}: this layout is one file for all splits; give one, or import them one by one")
    path = paths[0]
    file = open_hdf5(path, ["features"], ["ids"])
    features = file["features"]
    if features.ndim != 4 or "ids" not in file or len(file["ids"]) != len(features):
        raise InputError(f"{path}: needs features [images, channels, height, width] and as many ids")
    if file["ids"].ndim != 1 or file["ids"].dtype.kind not in "iu":
        raise InputError(f"{path}: ids are no whole numbers, one an image")
    _, channels, height, width = features.shape

    def read(image: int) -> Regions:
        with naming(path, f"row {image} cannot be read"):
            return Regions(features[image].reshape(channels, height * width).T)

    with naming(path, "ids cannot be read"):
        ids = tuple(str(number) for number in file["ids"][:].tolist())
    return PeerFeatures(
        image_ids=ids,
        paths=(path,) * len(features),
        regions_I=np.full(len(features), height * width),
        channels=channels,
        read=read,
    )
