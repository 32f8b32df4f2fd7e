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
from vqa.features.encoders.preprocessing import CENTRE_CROP, LARGEST_EDGE, RESIZE_MODES, Preparation
from vqa.features.encoders.torchvision_networks import CAFFE, IMAGENET, published_sizes, torchvision_encoder
from vqa.features.encoders.vision_encoders import hf_vision_encoder
from vqa.parts import find_origin, find_part

TRANSFORMERS = "hf"
DETECTOR = "detector"
# Written with a colon and what follows it.
FAMILIES = {TRANSFORMERS: f"{TRANSFORMERS}:NAME_OR_PATH", DETECTOR: f"{DETECTOR}:NAME"}
PRETRAINED = "pretrained"
PUBLISHED = {TRANSFORMERS: PRETRAINED, DETECTOR: "coco"}  # the others: "imagenet"
DEFAULT_SIZE = 224
AS_WEIGHTS = "weights"  # a resize mode that the weights say
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
    image_size: int | None = None,
    weights: str | None = None,
    resize: str = "squash",
    resize_to: int | None = None,
    scaled_decoding: bool = False,
    decoding: Decoding = ON_WHITE,
) -> ImageEncoder:
    """Build the encoder of that name.

    Args:
        name: a key of `IMAGE_ENCODERS`, "hf:NAME_OR_PATH", "detector:NAME", or one from outside.
        layer: see `torchvision_encoder`, `hf_vision_encoder` and `detector_encoder`; None takes the last map, the patch
            tokens or 36 boxes.
        image_size: side of the square image in pixels; None is 224, or with resize "weights" what they were trained on.
        weights: "imagenet" or another published set, "random", or a file; "pretrained" for "hf:…", "coco" for
            "detector:…". None takes the published ones of the family, `PUBLISHED`, and "pretrained" of one from
            outside.
        resize: "squash", "centre-crop" or "letterbox"; or "weights": scaled and cropped as torchvision's transforms of
            these weights do it.
        resize_to: with "centre-crop": what the shorter edge is scaled to before the crop; None is `image_size`.
        scaled_decoding: let JPEG decoding scale large images down by 2, 4 or 8 (faster, pixels differ slightly).
        decoding: what is done with transparency and with pixels of more than 8 bits.

    Raises:
        InputError: when the name, layer, size, weights or resize mode is wrong; the message gives the right choices.
    """
    kind, _, source = name.partition(":")
    own = kind in IMAGE_ENCODERS and (kind in FAMILIES) == bool(source)
    choices = {FAMILIES.get(choice, choice): make for choice, make in IMAGE_ENCODERS.items()}
    make = IMAGE_ENCODERS[kind] if own else find_part(KIND, choices, name)
    weights = weights or (PUBLISHED.get(kind, IMAGENET) if own else PRETRAINED)
    if resize == AS_WEIGHTS:
        if make is not torchvision_encoder:
            raise InputError(f"{name}: resize {AS_WEIGHTS!r} is for torchvision's classification networks")
        image_size, resize_to = _as_published(name, weights, image_size, resize_to)
        resize = CENTRE_CROP
    size = DEFAULT_SIZE if image_size is None else image_size
    _check_sizes(size, resize, resize_to)
    preparation = Preparation(size, resize, resize_to, scaled_decoding=scaled_decoding, decoding=decoding)
    if own:
        encoder = make(source or name, layer=layer, weights=weights, preparation=preparation)
    else:
        encoder = _from_outside(make, name, layer=layer, weights=weights, preparation=preparation)
    encoder.weights = weights
    return encoder


def _as_published(name: str, weights: str, image_size: int | None, resize_to: int | None) -> tuple[int, int]:
    """Image size and resize_to of the weights; raises InputError where the user asks for others."""
    edge, side = published_sizes(name, weights)
    for what, asked, published in (("image size", image_size, side), ("resize to", resize_to, edge)):
        if asked not in (None, published):
            raise InputError(
                f"{name}: {what} {asked}, but its weights scale to {edge} and crop {side} px; leave it out, or use "
                f"resize {CENTRE_CROP}"
            )
    return side, edge


def _check_sizes(size: int, resize: str, resize_to: int | None) -> None:
    """Raise InputError where sizes or resize mode are none."""
    if resize not in RESIZE_MODES:
        raise InputError(unknown_name("resize mode", resize, [*RESIZE_MODES, AS_WEIGHTS]))
    if size < 1:
        raise InputError(f"image size {size}: must be at least 1 px")
    if resize_to is not None and resize != CENTRE_CROP:
        raise InputError(f"resize to {resize_to}: is for resize {CENTRE_CROP}, not for {resize}")
    if resize_to is not None and not size <= resize_to <= LARGEST_EDGE:
        raise InputError(f"resize to {resize_to}: must be from the image size, {size}, to {LARGEST_EDGE:,} px")


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
