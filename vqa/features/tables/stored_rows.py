"""Rows of features in main memory: a tensor of their own, or the cache files mapped.

Legend: `N` images of the table, `I` rows of a file, `B` batch, `R` regions, `C` channels.
"""

import mmap
import warnings
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqa.features.cache.reader import FeatureCache

NEAR_BYTES = 256 << 10  # a gap that is read over: asking a disk twice would take about as long


class Source(NamedTuple):
    """Where each row of a table comes from: which cache, and which row of it."""

    cache_N: NDArray[np.int64]
    row_N: NDArray[np.int64]


class Rows(Protocol):
    """Rows of numbers of one stored type that can be copied in any order."""

    dtype: torch.dtype

    def __len__(self) -> int:
        """How many rows."""

    def read(self, row_B: Tensor, out_BRC: Tensor) -> None:
        """Copy some rows into `out_BRC`, which has the stored type; `row_B` is on the CPU."""

    def expect(self, row_M: Tensor) -> None:
        """Say that these rows will be read soon."""


class MemoryRows:
    """All rows in one tensor."""

    def __init__(self, table_NRC: Tensor) -> None:
        self.table_NRC = table_NRC
        self.dtype = table_NRC.dtype

    def __len__(self) -> int:
        return len(self.table_NRC)

    def read(self, row_B: Tensor, out_BRC: Tensor) -> None:
        torch.index_select(self.table_NRC, 0, row_B, out=out_BRC)

    def expect(self, row_M: Tensor) -> None:
        pass


class MappedRows:
    """The files' own bytes; the operating system keeps in memory what fits, once for all processes."""

    def __init__(self, caches: Sequence[FeatureCache], source: Source) -> None:
        self.caches, self.maps, tensors = caches, [], []
        for cache in caches:
            with cache.path.open("rb") as file, warnings.catch_warnings():
                # Read-only on purpose (a private writable map of a file larger than memory is refused).
                warnings.filterwarnings("ignore", message="The given buffer is not writable")
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                # What is wanted is announced by `expect`; reading around a page that is missed would be in vain.
                mapped.madvise(mmap.MADV_RANDOM)
                shape = (len(cache), cache.regions, cache.channels)
                flat = torch.frombuffer(mapped, dtype=cache.dtype, count=int(np.prod(shape)), offset=cache.offset)
                self.maps.append(mapped)
                tensors.append(flat.view(shape))
        self.features_IRC = tensors
        self.dtype = caches[0].dtype
        self.cache_N, self.row_N = torch.from_numpy(source.cache_N), torch.from_numpy(source.row_N)

    def __len__(self) -> int:
        return len(self.row_N)

    def read(self, row_B: Tensor, out_BRC: Tensor) -> None:
        row_in_cache_B = self.row_N[row_B]
        if len(self.maps) == 1:
            torch.index_select(self.features_IRC[0], 0, row_in_cache_B, out=out_BRC)
            return
        cache_B = self.cache_N[row_B]
        for number, features_IRC in enumerate(self.features_IRC):
            place = (cache_B == number).nonzero().squeeze(1)
            out_BRC.index_copy_(0, place, features_IRC.index_select(0, row_in_cache_B[place]))

    def expect(self, row_M: Tensor) -> None:
        """Ask the operating system to read these rows now, forwards, neighbours in one go."""
        row_M = row_M.unique()
        for number, (cache, mapped) in enumerate(zip(self.caches, self.maps, strict=True)):
            wanted = self.row_N[row_M[self.cache_N[row_M] == number]].unique().numpy()
            far = np.flatnonzero(np.diff(wanted) * cache.row_bytes > cache.row_bytes + NEAR_BYTES)
            firsts, lasts = np.append(0, far + 1), np.append(far, len(wanted) - 1)
            for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True) if len(wanted) else ():
                start = cache.offset + int(wanted[first]) * cache.row_bytes
                stop = cache.offset + (int(wanted[last]) + 1) * cache.row_bytes
                start -= start % mmap.PAGESIZE
                mapped.madvise(mmap.MADV_WILLNEED, start, stop - start)
