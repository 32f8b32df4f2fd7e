"""The parts of a transformer in float64 NumPy, one vector at a time, for fusions to be held against.

A weight is found by the name of its layer, as in `helpers.models.linear`.
"""

from collections.abc import Sequence
from math import erf, sqrt

import numpy as np
from numpy.typing import NDArray

from helpers.models import Weights, linear, softmax

Array = NDArray[np.float64]
Rows = Sequence[Array]


def layer_norm(w: Weights, key: str, values: Array) -> Array:
    mean = sum(values) / len(values)
    variance = sum((values - mean) ** 2) / len(values)
    normed: Array = w[f"{key}.weight"] * (values - mean) / np.sqrt(variance + 1e-5) + w[f"{key}.bias"]
    return normed


def gelu(values: Array) -> Array:
    return np.array([x * (1 + erf(x / sqrt(2))) / 2 for x in values])


def shares(w: Weights, key: str, query: Array, memory: Rows, heads: int, bias: Array | None = None) -> list[Array]:
    """How one vector's attention is shared out over a memory, head by head; the bias is `[heads, memory]`."""
    asked, width = linear(w, f"{key}.query", query), len(query) // heads
    keys = [linear(w, f"{key}.key", row) for row in memory]
    found = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = np.array([asked[part] @ row[part] / sqrt(width) for row in keys])
        found.append(softmax(scores if bias is None else scores + bias[head]))
    return found


def attention(w: Weights, key: str, query: Array, memory: Rows, heads: int, bias: Array | None = None) -> Array:
    """What one vector finds in a memory, all heads together."""
    values, width = [linear(w, f"{key}.value", row) for row in memory], len(query) // heads
    found = np.zeros(len(query))
    for head, share in enumerate(shares(w, key, query, memory, heads, bias)):
        part = slice(head * width, (head + 1) * width)
        for p, row in zip(share, values, strict=True):
            found[part] += p * row[part]
    return linear(w, f"{key}.output", found)


def bert_block(w: Weights, key: str, values: Rows, memory: Rows, heads: int) -> list[Array]:
    """Attention and feed-forward, each followed by layer normalisation of the sum."""
    result = []
    for row in values:
        row = row + attention(w, f"{key}.attention", row, memory, heads)
        row = layer_norm(w, f"{key}.after_attention.norm", row)
        change = linear(w, f"{key}.feed_forward.2", gelu(linear(w, f"{key}.feed_forward.0", row)))
        result.append(layer_norm(w, f"{key}.after_feed_forward.norm", row + change))
    return result


def embedded_words(w: Weights, key: str, words: Rows) -> list[Array]:
    """[CLS] and the words."""
    rows = [w[f"{key}.first_D"], *(linear(w, f"{key}.word", word) for word in words)]
    return [layer_norm(w, f"{key}.norm", row + w[f"{key}.type_D"]) for row in rows]


def embedded_regions(w: Weights, key: str, regions: Rows, boxes: Rows | None) -> list[Array]:
    """Regions and where they lie."""
    result = []
    for place, region in enumerate(regions):
        x1, y1, x2, y2 = (0.0, 0.0, 1.0, 1.0) if boxes is None else boxes[place]
        numbers = np.array([x1, y1, x2, y2, x2 - x1, y2 - y1, (x2 - x1) * (y2 - y1)])
        seen = layer_norm(w, f"{key}.region_norm", linear(w, f"{key}.region", region))
        lies = layer_norm(w, f"{key}.box_norm", linear(w, f"{key}.box", numbers))
        result.append(layer_norm(w, f"{key}.norm", seen + lies + w[f"{key}.type_D"]))
    return result
