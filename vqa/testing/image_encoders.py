"""What every image encoder promises: a function a promise.

Legend: `B` images, `S` side of the square image, `R` regions, `C` channels; the 3 is the colour channel.
"""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from vqa.features.encoders.image_encoder import ImageEncoder
from vqa.features.encoders.preprocessing import Preparation
from vqa.testing.batches import attempt, hold, hold_close

MakeImageEncoder = Callable[[], ImageEncoder]


def check_image_encoder(
    encoder: str | Callable[..., ImageEncoder],
    *,
    layer: str | None = None,
    image_size: int = 64,
    weights: str = "random",
) -> None:
    """Hold an image encoder to every promise.

    Args:
        encoder: a class or function, called as `encoder(name, layer=…, weights=…, preparation=…)`, or the name of one
            as for `vqa features extract --encoder`.
        layer, weights: what it is called with.
        image_size: side of the images in pixels.

    Raises:
        AssertionError: naming the first promise that is not kept.

    >>> check_image_encoder("squeezenet1_1", layer="features.4", image_size=32)
    """

    def make() -> ImageEncoder:
        if isinstance(encoder, str):
            from vqa.features.encoders.registry import build_image_encoder

            return build_image_encoder(encoder, layer=layer, image_size=image_size, weights=weights)
        name = f"{encoder.__module__}:{getattr(encoder, '__qualname__', type(encoder).__name__)}"
        return encoder(name, layer=layer, weights=weights, preparation=Preparation(size=image_size))

    for promise in IMAGE_ENCODER_PROMISES:
        promise(make)


def random_pixels(encoder: ImageEncoder, batch: int = 3) -> Tensor:
    """uint8 `[B, 3, S, S]`."""
    side, generator = encoder.image_size, torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=generator)


def returns_what_it_states(make: MakeImageEncoder) -> None:
    """Features are float32 `[B, regions, channels]` and finite, of several images and of one; no gradient is kept."""
    encoder = make()
    hold(isinstance(encoder, ImageEncoder), encoder, "is no ImageEncoder")
    for batch in (3, 1):
        feature_BRC = attempt(encoder, f"for {batch} images", random_pixels(encoder, batch))
        shape, wanted = list(feature_BRC.shape), [batch, encoder.regions, encoder.channels]
        hold(shape == wanted, encoder, f"gives features {shape}, not [B, regions, channels] = {wanted}")
        hold(feature_BRC.dtype == torch.float32, encoder, f"gives {feature_BRC.dtype}, not float32")
        hold(bool(feature_BRC.isfinite().all()), encoder, "gives numbers that are not finite")
        hold(not feature_BRC.requires_grad, encoder, "keeps gradients when it is called")


def stays_in_eval_mode(make: MakeImageEncoder) -> None:
    """A model's `train()` does not reach it: features must not depend on dropout or on the batch."""
    encoder = make().train()
    training = [name for name, part in encoder.named_modules() if part.training]
    hold(not training, encoder, f"goes into training mode with the model: {', '.join(training[:3]) or 'itself'}")


def treats_each_image_alone(make: MakeImageEncoder) -> None:
    """What an image gets does not depend on the others of its batch."""
    encoder = make()
    pixels_B3SS = random_pixels(encoder)
    together_BRC = encoder(pixels_B3SS)
    for row in range(len(pixels_B3SS)):
        alone_1RC = encoder(pixels_B3SS[row : row + 1])
        near = 1e-4 * float(together_BRC.abs().max())
        hold_close(
            alone_1RC, together_BRC[row : row + 1], encoder, "depends on the other images of its batch", near=near
        )


def is_made_again_the_same(make: MakeImageEncoder) -> None:
    """Made twice it has the same weights and gives the same numbers, as a cache that is completed later needs."""
    one, two = make(), make()
    hold(one.weights_sha256 == two.weights_sha256, one, "has other weights each time it is made")
    pixels_B3SS = random_pixels(one)
    hold(torch.equal(one(pixels_B3SS), two(pixels_B3SS)), one, "gives other numbers each time it is made")


def states_what_it_is(make: MakeImageEncoder) -> None:
    """What a cache states of it can be written: name, layer, size, weights and preprocessing."""
    encoder = make()
    try:
        json.dumps(encoder.attributes())
    except TypeError as error:
        hold(False, encoder, f"states attributes that cannot be written as JSON: {error}")
    for name in ("name", "layer", "weights_origin"):
        hold(isinstance(getattr(encoder, name), str) and bool(getattr(encoder, name)), encoder, f"states no {name}")


def reads_images(make: MakeImageEncoder) -> None:
    """An image file becomes uint8 pixels `[3, S, S]` that it can take."""
    from PIL import Image

    encoder = make()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "image.png"
        Image.new("RGB", (90, 60), "teal").save(path)
        pixels_3SS = encoder.load_image(path)
    wanted = [3, encoder.image_size, encoder.image_size]
    right = pixels_3SS.dtype == torch.uint8 and list(pixels_3SS.shape) == wanted
    hold(right, encoder, f"reads an image as {pixels_3SS.dtype} {list(pixels_3SS.shape)}, not as torch.uint8 {wanted}")
    encoder(pixels_3SS[None])


IMAGE_ENCODER_PROMISES: tuple[Callable[[MakeImageEncoder], None], ...] = (
    returns_what_it_states,
    stays_in_eval_mode,
    treats_each_image_alone,
    is_made_again_the_same,
    states_what_it_is,
    reads_images,
)
