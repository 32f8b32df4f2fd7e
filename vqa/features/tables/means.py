"""The mean real region of each image, computed once while a table is filled.

Legend: `N` images of the table, `B` some of them, `R` regions, `C` channels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vqa.features.cache.reader import FeatureCache
from vqa.features.tables.stored_rows import Source

NUMBERS_AT_ONCE = 1 << 20  # 4 MiB of float32


def fill_means(table_M1C: Tensor, caches: Sequence[FeatureCache], source: Source) -> None:
    """Read every image's map, each file from front to back, and keep its mean.

    Args:
        table_M1C: float32, one row an image; with twice as many rows, the second half gets the variance of each
            image's regions about its mean, both worked out in float64.
    """
    count = len(source.row_N)
    for number, cache in enumerate(caches):
        place_N = np.flatnonzero(source.cache_N == number)
        place_N = place_N[np.argsort(source.row_N[place_N], kind="stable")]
        most = max(1, NUMBERS_AT_ONCE // (cache.regions * cache.channels))
        buffer_BRC = torch.empty(min(most, len(place_N)), cache.regions, cache.channels)
        for start in range(0, len(place_N), most):
            place_B = place_N[start : start + most]
            row_B = source.row_N[place_B]
            map_BRC = buffer_BRC[: len(place_B)]
            cache.read_into(row_B, np.arange(len(row_B)), map_BRC)
            count_B = None if cache.count_I is None else cache.count_I[torch.from_numpy(row_B)]
            if len(table_M1C) == count:
                mean_BC, variance_BC = mean_of_real(map_BRC, count_B), None
            else:
                mean_BC, variance_BC = moments(map_BRC.double(), count_B)
            to = torch.from_numpy(place_B).to(table_M1C.device)
            table_M1C[to, 0] = mean_BC.to(table_M1C)
            if variance_BC is not None:
                table_M1C[count + to, 0] = variance_BC.to(table_M1C)


def mean_of_real(map_BRC: Tensor, count_B: Tensor | None) -> Tensor:
    """The mean of each image's first `count_B` regions, `[B, C]`; None: of all."""
    if count_B is None:
        return map_BRC.mean(dim=1)
    padded_BR = torch.arange(map_BRC.shape[1]) >= count_B[:, None]
    return map_BRC.masked_fill(padded_BR[:, :, None], 0).sum(dim=1) / count_B[:, None]


def moments(map_BRC: Tensor, count_B: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and variance of each image's real regions, `[B, C]` each."""
    mean_BC = mean_of_real(map_BRC, count_B)
    return mean_BC, mean_of_real((map_BRC - mean_BC[:, None]).square(), count_B)
