"""How many images fit into the memory that is free, and whether a batch does: known before the first one is encoded."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqa.features.cache.reader import FeatureCache
from vqa.features.encoders.image_encoder import ImageEncoder
from vqa.features.extraction.extract import BATCH_SIZE, images_at_once
from vqa.runtime.device import free_memory, require_memory
from vqa.runtime.memory import memory_errors_named

MOST_ON_GPU = 256  # images; of more a GPU has no use
GPU_SHARE = 8  # of the free memory one part for the largest layer, counted as `image_bytes`; the rest is for all else


def default_batch(encoder: ImageEncoder, device: torch.device, begun: Path | None) -> int:
    """How many images are encoded together unless asked for.

    Args:
        begun: the cache that is to be completed, if there is one: it goes on as it was begun.
    """
    least = images_at_once(encoder.image_size)
    if begun is not None:
        stated = FeatureCache(begun).attributes.get(BATCH_SIZE, least)
        return int(stated) if isinstance(stated, int) and stated >= 1 else least
    if device.type != "cuda" or not largest_layer(encoder):  # whose memory is not known
        return least
    return batch_for(image_bytes(encoder), free_memory(device), least)


def batch_for(image_bytes: int, free: int, least: int) -> int:
    """A power of two that grows with the free memory, at most `MOST_ON_GPU`, or `least` where that is more.

    >>> batch_for(13 << 20, 80 << 30, 32), batch_for(13 << 20, 8 << 30, 32), batch_for(13 << 20, 1 << 30, 32)
    (256, 64, 32)
    """
    fitting = min(MOST_ON_GPU, max(1, free // GPU_SHARE // image_bytes))
    return max(least, 1 << (fitting.bit_length() - 1))


@contextmanager
def enough_memory(encoder: ImageEncoder, images: int, device: torch.device) -> Iterator[None]:
    """Around the encoding of batches of so many images.

    Raises:
        InputError: a batch does not fit into the memory that is free now, or there was none left on the way.
    """
    size = encoder.image_size
    batch = f"{images:,} image{'s' if images > 1 else ''} of {size} px at once"
    remedy = "take a smaller --batch-size" if images > 1 else "take a smaller --image-size"
    require_memory(images * image_bytes(encoder), device, f"{device.type}: encoding {batch}", remedy)
    with memory_errors_named(f"{device}: no memory for {batch}; {remedy} (what was done is kept)"):
        yield


def image_bytes(encoder: ImageEncoder) -> int:
    """The least that an image takes while it is encoded: its pixels, and the largest layer's input and output.

    Counted in 16 bits; of the pixels alone where no layer is known (`largest_layer`).
    """
    pixels = 3 * encoder.image_size**2
    return pixels + 2 * max(pixels, largest_layer(encoder))


def largest_layer(encoder: ImageEncoder) -> int:
    """How many numbers the layer with the most takes and gives for one image, found by a run without data.

    0 where there can be no such run, as of a detector. The run is of a copy: it may leave tensors without data behind.
    """
    largest = 0

    def look(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        nonlocal largest
        values = [value for value in (*inputs, output) if isinstance(value, Tensor)]
        if not any(module.children()):
            largest = max(largest, sum(value.numel() for value in values))

    try:
        network = _copy_on_meta(encoder.network)
        for module in network.modules():
            module.register_forward_hook(look)
        with torch.no_grad():
            network(torch.empty(1, 3, encoder.image_size, encoder.image_size, device="meta"))
    except (RuntimeError, AssertionError, ValueError, IndexError, TypeError):
        return 0
    return largest


def _copy_on_meta(network: nn.Module) -> nn.Module:
    """The same network without its weights, whose memory is not taken a second time."""
    copied: dict[int, Any] = {id(one): nn.Parameter(one.to("meta"), False) for one in network.parameters()}
    copied |= {id(one): one.to("meta") for one in network.buffers()}
    return copy.deepcopy(network, copied).eval()  # a copied torch.fx graph is in training mode
