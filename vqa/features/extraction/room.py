"""Whether a batch of images fits into the memory that is free: known before the first one is encoded."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vqa.features.encoders.image_encoder import ImageEncoder, on_meta
from vqa.runtime.device import require_memory
from vqa.runtime.memory import memory_errors_named


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

    Counted in 16 bits, on a run without data; where there can be none (a detector) of the pixels alone.
    """
    pixels = 3 * encoder.image_size**2
    largest = 0

    def look(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        nonlocal largest
        values = [value for value in (*inputs, output) if isinstance(value, Tensor)]
        if not any(module.children()):
            largest = max(largest, sum(value.numel() for value in values))

    hooks = [module.register_forward_hook(look) for module in encoder.network.modules()]
    try:
        image = torch.empty(1, 3, encoder.image_size, encoder.image_size, device="meta")
        torch.func.functional_call(encoder.network, on_meta(encoder.network), (image,))
    except (RuntimeError, AssertionError, ValueError, IndexError, TypeError):
        largest = 0
    finally:
        for hook in hooks:
            hook.remove()
    return pixels + 2 * max(pixels, largest)
