"""Which regions of a table's images are real, and where they lie: small beside the features, kept where batches go.

Legend: `N` images of the table, `R` regions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vqa.features.cache.reader import FeatureCache
from vqa.features.tables.stored_rows import Source


def region_counts(caches: Sequence[FeatureCache], source: Source) -> Tensor | None:
    """How many regions of each row are real, the first ones: int64 `[N]`; None where all are, of every row."""
    count_N = torch.full((len(source.row_N),), caches[0].regions)
    for number, cache in enumerate(caches):
        here_N = torch.from_numpy(source.cache_N == number)
        if cache.count_I is not None:
            count_N[here_N] = cache.count_I[torch.from_numpy(source.row_N)[here_N]]
    return count_N if bool((count_N < caches[0].regions).any()) else None


def masks(count_N: Tensor | None, regions: int, device: torch.device) -> Tensor | None:
    """True on real regions, of which each image has `count_N` first ones: bool `[N, R]`; None where all are."""
    return None if count_N is None else (torch.arange(regions) < count_N[:, None]).to(device)


def boxes(caches: Sequence[FeatureCache], source: Source, device: torch.device) -> Tensor | None:
    """Where each region lies: float32 `[N, R, 4]`; None where the caches do not say."""
    if not all(cache.boxed for cache in caches):
        return None
    box_NR4 = torch.empty(len(source.row_N), caches[0].regions, 4)
    for number, cache in enumerate(caches):
        place_N = np.flatnonzero(source.cache_N == number)
        box_NR4[torch.from_numpy(place_N)] = cache.read_boxes(source.row_N[place_N])
    return box_NR4.to(device)
