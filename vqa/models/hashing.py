"""The hash that spreads few weights over a large matrix (`dppnet`): xxh32, many keys of one length at a time.

Source: xxHash, 32 bits (Y. Collet), by its published specification; the keys are those of the released code of Noh et
al. 2016 (arXiv 1511.05756).

Legend: `N` keys, `L` bytes of a key.
"""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

SEED = 1691
_PRIMES = tuple(np.uint32(prime) for prime in (2654435761, 2246822519, 3266489917, 668265263, 374761393))
_LEFTS_AT_ONCE = 128


def xxh32(keys_NL: NDArray[np.uint8], seed: int) -> NDArray[np.uint32]:
    """The 32-bit xxHash of every row."""
    first, second, third, fourth, fifth = _PRIMES
    count, length = keys_NL.shape
    start: NDArray[np.uint32] = np.full(count, seed, dtype=np.uint32)
    words: NDArray[np.uint32] = np.ascontiguousarray(keys_NL[:, : length - length % 4]).view("<u4")
    done = 0
    if length >= 16:
        lanes = [start + first + second, start + second, start + np.uint32(0), start - first]
        while (done + 4) * 4 <= length:
            for lane in range(4):
                lanes[lane] = _rotate(lanes[lane] + words[:, done + lane] * second, 13) * first
            done += 4
        result = _rotate(lanes[0], 1) + _rotate(lanes[1], 7) + _rotate(lanes[2], 12) + _rotate(lanes[3], 18)
    else:
        result = start + fifth
    result = result + np.uint32(length)
    for word in range(done, length // 4):
        result = _rotate(result + words[:, word] * third, 17) * fourth
    for byte in range(length - length % 4, length):
        result = _rotate(result + keys_NL[:, byte].astype(np.uint32) * fifth, 11) * first
    result = (result ^ (result >> np.uint32(15))) * second
    result = (result ^ (result >> np.uint32(13))) * third
    return result ^ (result >> np.uint32(16))


def dynamic_layer_hash(outputs: int, inputs: int, buckets: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bucket (0 to `buckets` - 1) and sign (-1 or 1) of every weight of a matrix, `[outputs, inputs]`."""
    bucket = _hash_pairs(outputs, inputs, "idxW") % np.uint32(buckets)
    sign = 2 * (_hash_pairs(outputs, inputs, "xi_W") % np.uint32(2)).astype(np.int64) - 1
    return bucket.astype(np.int64), sign


def _hash_pairs(outputs: int, inputs: int, suffix: str) -> NDArray[np.uint32]:
    """xxh32 of "i i+1 i+2 _ j j+1 j+2 suffix" (no spaces), i over outputs and j over inputs, both from 1."""
    hashes = np.empty((outputs, inputs), dtype=np.uint32)
    lefts = _by_length([f"{i}{i + 1}{i + 2}_" for i in range(1, outputs + 1)])
    rights = _by_length([f"{j}{j + 1}{j + 2}{suffix}" for j in range(1, inputs + 1)])
    for left_places, left_NL in lefts:
        for begin in range(0, len(left_places), _LEFTS_AT_ONCE):
            some, some_NL = left_places[begin : begin + _LEFTS_AT_ONCE], left_NL[begin : begin + _LEFTS_AT_ONCE]
            for right_places, right_NL in rights:
                keys_NL = np.concatenate(
                    [np.repeat(some_NL, len(right_NL), axis=0), np.tile(right_NL, (len(some_NL), 1))], axis=1
                )
                hashes[np.ix_(some, right_places)] = xxh32(keys_NL, SEED).reshape(len(some), len(right_places))
    return hashes


def _by_length(texts: list[str]) -> list[tuple[list[int], NDArray[np.uint8]]]:
    """Texts of one length together: their places in the list, and their bytes."""
    groups: dict[int, list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        groups[len(text)].append(place)
    return [
        (places, np.frombuffer("".join(texts[place] for place in places).encode(), dtype=np.uint8).reshape(-1, length))
        for length, places in groups.items()
    ]


def _rotate(values: NDArray[np.uint32], by: int) -> NDArray[np.uint32]:
    return (values << np.uint32(by)) | (values >> np.uint32(32 - by))
