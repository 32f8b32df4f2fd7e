"""Image encoders by name.

`IMAGE_ENCODERS` holds every classification network of torchvision under its own name, VGG with Caffe's preprocessing
as "vgg16_caffe" and "vgg19_caffe", "hf" for the vision encoder of any transformers model ("hf:NAME_OR_PATH"), and
"detector" for the regions of a torchvision detector ("detector:NAME"). One of your own is "mypackage.mine:Mine"
(`vqa.parts`): a class or function that is called as those of the table are and gives an `ImageEncoder`.
"""

from collections.abc import Callable
from typing import Any

import torchvision

from vqa.data.images import ON_WHITE, Decoding
from vqa.errors import InputError, first_line, unknown_name
from vqa.features.encoders.detector import detector_encoder
from vqa.features.encoders.image_encoder import ImageEncoder
from vqa.features.encoders.preprocessing import RESIZE_MODES, Preparation
from vqa.features.encoders.torchvision_networks import CAFFE, IMAGENET, torchvision_encoder
from vqa.features.encoders.vision_encoders import hf_vision_encoder
from vqa.parts import find_origin, find_part

TRANSFORMERS = "hf"
DETECTOR = "detector"
# Written with a colon and what follows it.
FAMILIES = {TRANSFORMERS: f"{TRANSFORMERS}:NAME_OR_PATH", DETECTOR: f"{DETECTOR}:NAME"}
PRETRAINED = "pretrained"
PUBLISHED = {TRANSFORMERS: PRETRAINED, DETECTOR: "coco"}  # the others: "imagenet"
KIND = "image encoder"  # for `vqa.parts`
IMAGE_ENCODERS: dict[str, Callable[..., ImageEncoder]] = {
    **dict.fromkeys(torchvision.models.list_models(module=torchvision.models), torchvision_encoder),
    **dict.fromkeys([f"vgg16{CAFFE}", f"vgg19{CAFFE}"], torchvision_encoder),
    TRANSFORMERS: hf_vision_encoder,
    DETECTOR: detector_encoder,
}

__all__ = ["IMAGENET", "IMAGE_ENCODERS", "ImageEncoder", "build_image_encoder"]


def build_image_encoder(
    name: str,
    *,
    layer: str | None = None,
    image_size: int = 224,
    weights: str | None = None,
    resize: str = "squash",
    scaled_decoding: bool = False,
    decoding: Decoding = ON_WHITE,
) -> ImageEncoder:
    """Build the encoder of that name.

    Args:
        name: a key of `IMAGE_ENCODERS`, "hf:NAME_OR_PATH", "detector:NAME", or one from outside.
        layer: see `torchvision_encoder`, `hf_vision_encoder` and `detector_encoder`; None takes the last map, the patch
            tokens or 36 boxes.
        image_size: side of the square image in pixels.
        weights: "imagenet" or another published set, "random", or a file; "pretrained" for "hf:…", "coco" for
            "detector:…". None takes the published ones of the family, `PUBLISHED`, and "pretrained" of one from
            outside.
        resize: "squash", "centre-crop" or "letterbox".
        scaled_decoding: let JPEG decoding scale large images down by 2, 4 or 8 (faster, pixels differ slightly).
        decoding: what is done with transparency and with pixels of more than 8 bits.

    Raises:
        InputError: when the name, layer, size, weights or resize mode is wrong; the message gives the right choices.
    """
    kind, _, source = name.partition(":")
    own = kind in IMAGE_ENCODERS and (kind in FAMILIES) == bool(source)
    choices = {FAMILIES.get(choice, choice): make for choice, make in IMAGE_ENCODERS.items()}
    make = IMAGE_ENCODERS[kind] if own else find_part(KIND, choices, name)
    if resize not in RESIZE_MODES:
        raise InputError(unknown_name("resize mode", resize, RESIZE_MODES))
    if image_size < 1:
        raise InputError(f"image size {image_size}: must be at least 1 px")
    preparation = Preparation(size=image_size, resize=resize, scaled_decoding=scaled_decoding, decoding=decoding)
    weights = weights or (PUBLISHED.get(kind, IMAGENET) if own else PRETRAINED)
    if own:
        encoder = make(source or name, layer=layer, weights=weights, preparation=preparation)
    else:
        encoder = _from_outside(make, name, layer=layer, weights=weights, preparation=preparation)
    encoder.weights = weights
    return encoder


def _from_outside(make: Callable[..., object], name: str, **options: Any) -> ImageEncoder:
    """What code from outside the package gives, under the name that finds it again."""
    try:
        encoder = make(name, **options) if callable(make) else make
    except TypeError as error:
        raise InputError(
            f"image encoder {name!r}: is not made by (name, layer=, weights=, preparation=): {first_line(error)}"
        ) from error
    if not isinstance(encoder, ImageEncoder):
        wanted = f"{ImageEncoder.__module__}.{ImageEncoder.__name__}"
        raise InputError(f"{KIND} {name!r} must be a class or function that gives a {wanted}, not {encoder!r:.60}")
    encoder.name, encoder.code = name, str(find_origin(KIND, name))
    return encoder
