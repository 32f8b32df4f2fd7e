"""Whether HDF5 can read a file's texts of variable length without harm.

Such texts (attributes, as h5py writes them) lie in blocks called global heaps. The library trusts them: a length of
zero in a damaged block is an endless loop, and a damaged reference to it sets gigabytes of memory to zero. Both are
found here beforehand. A block is `GCOL`, version 1, 3 bytes of 0, its size (8 bytes), then objects: index (2),
references (2), 0 (4), size (8), content padded to 8. Index 0 is what is free. A reference is a length (4), the address
of the block (8), and an index (4). Numbers are little-endian.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

SIGNATURE = b"GCOL\x01\0\0\0"
HEAD = 16  # bytes before the first object, and before each object's content
REFERENCE_BYTES = 16
MOST_BYTES = 64 << 20  # that are looked at from the beginning, and as many from the end


def text_faults(path: Path, base: int, data: Sequence[tuple[int, int]]) -> list[str]:
    """What is wrong with a file's global heaps.

    Args:
        path: the file.
        base: where its addresses count from, in bytes.
        data: where plain numbers begin and end, which are passed over.
    """
    size, faults = path.stat().st_size, list[str]()
    with path.open("rb") as file:
        blocks: list[tuple[int, bytes]] = []
        for start, stop in _between(data, size):
            file.seek(start)
            blocks.append((start, file.read(stop - start)))
        known = np.array(list(_heaps(blocks, size, faults)), dtype=np.int64).reshape(-1, 2)
    for start, block in blocks if len(known) else ():
        first = -start % 8  # references begin at multiples of 8
        pairs = np.frombuffer(block[first : first + (len(block) - first) // 8 * 8], dtype="<u4").reshape(-1, 2)
        length, low, high, index = pairs[:-1, 0], pairs[:-1, 1], pairs[1:, 0], pairs[1:, 1]
        address = (high.astype(np.int64) << 32) + low.astype(np.int64) + base
        place = np.searchsorted(known[:, 0], address).clip(max=len(known) - 1)
        referring = (known[place, 0] == address) & (index > 0) & (index < 1 << 16)
        if (referring & (length > known[place, 1])).any():
            faults.append("a text is said to be longer than the block that it lies in")
    return faults


def _between(data: Sequence[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """What is not `data`: where it begins and ends, at most `MOST_BYTES` from either end of the file."""
    windows = [(0, min(MOST_BYTES, size)), (max(MOST_BYTES, size - MOST_BYTES), size)]
    at = 0
    for start, stop in [*sorted(data), (size, size)]:
        for low, high in windows:
            if max(at, low) < min(start, high):
                yield max(at, low), min(start, high)
        at = max(at, stop)


def _heaps(blocks: Sequence[tuple[int, bytes]], size: int, faults: list[str]) -> Iterator[tuple[int, int]]:
    """Where each heap begins and how many bytes it has, in order; those that are damaged are faults."""
    for start, block in blocks:
        at = block.find(SIGNATURE)
        while at >= 0:
            whole = int.from_bytes(block[at + 8 : at + HEAD], "little")
            if whole > size - start - at or not _sound(block[at : at + whole], whole):
                faults.append("a block of texts is damaged")
            yield start + at, whole if whole < 1 << 62 else 0
            at = block.find(SIGNATURE, at + len(SIGNATURE))


def _sound(heap: bytes, size: int) -> bool:
    """Whether each object of a heap ends where another begins, up to the heap's end."""
    at = HEAD
    while at + HEAD <= size:
        if at + HEAD > len(heap):
            return len(heap) < size  # the rest is not at hand
        index, length = int.from_bytes(heap[at : at + 2], "little"), int.from_bytes(heap[at + 8 : at + HEAD], "little")
        taken = HEAD + -(-length // 8) * 8 if index else length
        if taken < HEAD or at + taken > size:
            return False
        at += taken
    return True
