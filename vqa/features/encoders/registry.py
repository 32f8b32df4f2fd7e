"""Image encoders by name.

`IMAGE_ENCODERS` holds every classification network of torchvision under its own name, VGG with Caffe's preprocessing
as "vgg16_caffe" and "vgg19_caffe", "hf" for the vision encoder of any transformers model ("hf:NAME_OR_PATH"), and
"detector" for the regions of a torchvision detector ("detector:NAME").
"""

from collections.abc import Callable

import torchvision

from vqa.errors import InputError, unknown_name
from vqa.features.encoders.detector import detector_encoder
from vqa.features.encoders.image_encoder import ImageEncoder
from vqa.features.encoders.preprocessing import RESIZE_MODES, Preparation
from vqa.features.encoders.torchvision_networks import CAFFE, IMAGENET, torchvision_encoder
from vqa.features.encoders.vision_encoders import hf_vision_encoder

TRANSFORMERS = "hf"
DETECTOR = "detector"
FAMILIES = {
    TRANSFORMERS: f"{TRANSFORMERS}:NAME_OR_PATH",
    DETECTOR: f"{DETECTOR}:NAME",
}  # written with a colon and what follows it
PUBLISHED = {TRANSFORMERS: "pretrained", DETECTOR: "coco"}  # the others: "imagenet"
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
) -> ImageEncoder:
    """Build the encoder of that name.

    Args:
        name: a key of `IMAGE_ENCODERS`, "hf:NAME_OR_PATH" or "detector:NAME".
        layer: see `torchvision_encoder`, `hf_vision_encoder` and `detector_encoder`; None takes the last map, the patch
            tokens or 36 boxes.
        image_size: side of the square image in pixels.
        weights: "imagenet" or another published set, "random", or a file; "pretrained" for "hf:…", "coco" for
            "detector:…". None takes the published ones of the family, `PUBLISHED`.
        resize: "squash", "centre-crop" or "letterbox".
        scaled_decoding: let JPEG decoding scale large images down by 2, 4 or 8 (faster, pixels differ slightly).

    Raises:
        InputError: when the name, layer, size, weights or resize mode is wrong; the message gives the right choices.
    """
    kind, _, source = name.partition(":")
    if kind not in IMAGE_ENCODERS or (kind in FAMILIES) != bool(source):
        choices = [FAMILIES.get(choice, choice) for choice in IMAGE_ENCODERS]
        raise InputError(unknown_name("image encoder", name, choices))
    if resize not in RESIZE_MODES:
        raise InputError(unknown_name("resize mode", resize, RESIZE_MODES))
    if image_size < 1:
        raise InputError(f"image size {image_size}: must be at least 1 px")
    preparation = Preparation(size=image_size, resize=resize, scaled_decoding=scaled_decoding)
    weights = weights or PUBLISHED.get(kind, IMAGENET)
    encoder = IMAGE_ENCODERS[kind](source or name, layer=layer, weights=weights, preparation=preparation)
    encoder.weights = weights
    return encoder
