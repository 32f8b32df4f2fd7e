"""Image encoders by name.

`IMAGE_ENCODERS` holds every classification network of torchvision under its own name, VGG with Caffe's preprocessing
as "vgg16_caffe" and "vgg19_caffe", and "hf" for the vision tower of any transformers model ("hf:NAME_OR_PATH").
"""

from collections.abc import Callable

import torchvision

from vqa.errors import InputError, unknown_name
from vqa.features.image_encoder import ImageEncoder
from vqa.features.pictures import RESIZE_MODES, Preparation
from vqa.features.torchvision_networks import CAFFE, IMAGENET, torchvision_encoder
from vqa.features.vision_towers import vision_tower

HUB = "hf"
IMAGE_ENCODERS: dict[str, Callable[..., ImageEncoder]] = {
    **dict.fromkeys(torchvision.models.list_models(module=torchvision.models), torchvision_encoder),
    **dict.fromkeys([f"vgg16{CAFFE}", f"vgg19{CAFFE}"], torchvision_encoder),
    HUB: vision_tower,
}

__all__ = ["IMAGENET", "IMAGE_ENCODERS", "ImageEncoder", "build_image_encoder"]


def build_image_encoder(
    name: str,
    *,
    layer: str | None = None,
    image_size: int = 224,
    weights: str = IMAGENET,
    resize: str = "squash",
    scaled_decoding: bool = False,
) -> ImageEncoder:
    """Build the encoder of that name.

    Args:
        name: a key of `IMAGE_ENCODERS`, or "hf:NAME_OR_PATH".
        layer: see `torchvision_encoder` and `vision_tower`; None takes the last map, or the patch tokens.
        image_size: side of the square picture in pixels.
        weights: "imagenet" or another published set, "random", or a file; "pretrained" for "hf:…".
        resize: "squash", "centre-crop" or "letterbox".
        scaled_decoding: let JPEG decoding scale large pictures down by 2, 4 or 8 (faster, pixels differ slightly).

    Raises:
        InputError: when the name, layer, size, weights or resize mode is wrong; the message gives the right choices.
    """
    kind, _, source = name.partition(":")
    if kind not in IMAGE_ENCODERS or (kind == HUB) != bool(source):
        choices = [f"{HUB}:NAME_OR_PATH" if choice == HUB else choice for choice in IMAGE_ENCODERS]
        raise InputError(unknown_name("image encoder", name, choices))
    if resize not in RESIZE_MODES:
        raise InputError(unknown_name("resize mode", resize, RESIZE_MODES))
    if image_size < 1:
        raise InputError(f"image size {image_size}: must be at least 1 px")
    preparation = Preparation(size=image_size, resize=resize, scaled_decoding=scaled_decoding)
    encoder = IMAGE_ENCODERS[kind](source or name, layer=layer, weights=weights, preparation=preparation)
    encoder.weights = weights
    return encoder
