"""Caches whose images differ in their regions, and the tables made of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from helpers.features import ATTRIBUTES
from vqa.data.dataset import ImageTable
from vqa.features.cache.reader import FeatureCache
from vqa.features.cache.writer import WHERE, CacheWriter
from vqa.features.tables.feature_table import FeatureTable

CPU = torch.device("cpu")
REGIONS, CHANNELS = 5, 3
HOMES = ("device", "host", "disk", "shared")


def written(
    path: Path,
    prefix: str,
    counts: Sequence[int],
    where: Sequence[str] = WHERE,
    dtype: str = "float16",
    feature_IRC: torch.Tensor | None = None,
) -> FeatureCache:
    """A cache of images `prefix`0 on, each with so many real regions, noise in the padded ones."""
    random, count = np.random.default_rng(len(counts)), len(counts)
    images = ImageTable(tuple(f"{prefix}{i}" for i in range(count)), tuple(Path(f"{i}.jpg") for i in range(count)))
    if feature_IRC is None:
        feature_IRC = torch.from_numpy(random.normal(size=(count, REGIONS, CHANNELS))).float()
    corner_IR22 = torch.from_numpy(random.random((count, REGIONS, 2, 2))).float().sort(dim=2).values
    with CacheWriter(path, images, ATTRIBUTES, REGIONS, CHANNELS, dtype, where=where) as writer:
        digests = ["0" * 64] * count
        writer.write(np.arange(count), feature_IRC, digests, torch.tensor(counts), corner_IR22.flatten(2))
    return FeatureCache(path)


def load(caches: Sequence[FeatureCache], ids: Sequence[str], home: str, **options: object) -> FeatureTable:
    residency, share = ("host", True) if home == "shared" else (home, False)
    return FeatureTable.load(caches, ids, CPU, residency, share=share, **options)  # type: ignore[arg-type]
