"""GT-Vision-Lab/VQA_LSTM_CNN: data_img.h5 with `images_train` and `images_test` `[images, 4096]` float32.

The images' names stand in data_prepro.json, in the lists `unique_img_train` and `unique_img_test`.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from vqa.errors import InputError
from vqa.features.cache.imports.source import PeerFeatures, Regions, image_id, naming, one_file, open_hdf5
from vqa.files import read_json

NAMES = "data_prepro.json"
SPLITS = ("train", "test")


class Names(msgspec.Struct):
    """The part of data_prepro.json that is read."""

    unique_img_train: list[str] = []
    unique_img_test: list[str] = []


def open_files(paths: Sequence[Path]) -> PeerFeatures:
    """Open data_img.h5; data_prepro.json is taken from beside it unless it is given too."""
    path = one_file(paths, ".h5", "data_img.h5")
    if path is None:
        raise InputError(f"{paths[0]}: give data_img.h5")
    listed = one_file(paths, ".json", NAMES) or path.with_name(NAMES)
    names = read_json(listed, Names)
    file = open_hdf5(path, [f"images_{split}" for split in SPLITS])
    place: list[tuple[str, int]] = []
    ids: list[str] = []
    channels = set()
    for split in SPLITS:
        table, there = file.get(f"images_{split}"), getattr(names, f"unique_img_{split}")
        if table is None:
            continue
        if table.ndim != 2 or len(table) != len(there):
            raise InputError(
                f"{path}: images_{split} is {table.shape}, and {listed} names {len(there):,} images; do they belong "
                "together?"
            )
        ids += [image_id(name) for name in there]
        place += [(f"images_{split}", row) for row in range(len(there))]
        channels.add(table.shape[1])
    if len(channels) != 1:
        raise InputError(f"{path}: its tables differ in channels: {sorted(channels)}")

    def read(image: int) -> Regions:
        split, row = place[image]
        with naming(path, f"{split} row {row} cannot be read"):
            return Regions(file[split][row : row + 1])

    return PeerFeatures(tuple(ids), (path,) * len(ids), np.ones(len(ids), dtype=np.int64), channels.pop(), read)
