"""From an image file to the bytes that an image encoder takes.

Legend: `S` side of the square image in pixels; the first 3 is the colour channel (red, green, blue).
"""

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from vqa.data.dataset import ImageTable
from vqa.data.images import (
    FULL_RANGE,
    MOST_PIXELS,
    ON_WHITE,
    SIXTEEN_BIT_FORMATS,
    Decoding,
    ImageFile,
    content_of,
    decode,
    is_one_colour,
    name_of,
    naming,
    read_rgb,
    to_rgba,
    upright,
    value_type,
)
from vqa.data.missing import missing_sentence
from vqa.errors import InputError

__all__ = ["DecodedImage", "ImageFile", "Preparation", "as_file", "load_image", "read_rgb", "require_files"]

INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
KEPT_AS_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
CENTRE_CROP = "centre-crop"
LARGEST_EDGE = 8_000  # of an image's side in pixels; the square of it is `MOST_PIXELS`
PADDING_COLOUR = (124, 116, 104)  # the ImageNet mean, so that letterbox bars are about zero after normalisation


@dataclass(frozen=True)
class Preparation:
    """All that happens to an image between its file and the network.

    Attributes:
        size: side of the square image in pixels.
        resize: how it becomes square, a key of `RESIZE_MODES`.
        resize_to: with "centre-crop": the shorter edge is scaled to so many pixels, and `size` of them are kept, as
            torchvision's transforms do it; None crops first and scales what is left.
        interpolation: a key of `INTERPOLATIONS`, always antialiased.
        scaled_decoding: JPEG files that are much too large are scaled down by 2, 4 or 8 while they are decoded.
        colours: the order of the channels that the network wants, "RGB" or "BGR".
        divisor: pixels 0 to 255 are divided by this, then `mean` is subtracted, then divided by `std`.
        mean, std: in the order of `colours`.
        decoding: what is done with transparency and with pixels of more than 8 bits.
    """

    size: int
    resize: str = "squash"
    resize_to: int | None = None
    interpolation: str = "bilinear"
    scaled_decoding: bool = False
    colours: str = "RGB"
    divisor: float = 255.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    decoding: Decoding = ON_WHITE

    def as_json(self) -> dict[str, Any]:
        """What a feature cache states."""
        return {
            "colours": self.colours,
            "exif_rotation": True,
            "resize": self.resize,
            **({} if self.resize_to is None else {"resize_to": self.resize_to}),
            "interpolation": f"{self.interpolation}, antialiased",
            "scaled_decoding": self.scaled_decoding,
            "size": [self.size, self.size],
            "scale": f"1/{self.divisor:g}",
            "mean": list(self.mean),
            "std": list(self.std),
            **self.decoding.as_json(),
        }

    def on_image(self, box_BR4: Tensor, size_B2: Tensor) -> Tensor:
        """Boxes on the prepared square images, as shares of its side, on the images themselves: float32 `[B, R, 4]`.

        Args:
            size_B2: width and height of each image, upright.
        """
        side_B2 = size_B2.to(box_BR4.device, torch.float32)
        square_B2 = side_B2  # of what became the square
        if self.resize != "squash":
            edge_B = side_B2.amax(dim=1) if self.resize == "letterbox" else side_B2.amin(dim=1)
            kept = 1.0 if self.resize_to is None else self.size / self.resize_to
            square_B2 = kept * edge_B[:, None].expand(-1, 2)
        scale_B12 = (square_B2 / side_B2)[:, None]
        corner_BR22 = box_BR4.float().unflatten(2, (2, 2))  # the square lies on the image's middle
        corner_BR22 = (corner_BR22 - 0.5) * scale_B12[:, None] + 0.5
        return corner_BR22.clamp(0, 1).flatten(2)


class DecodedImage(NamedTuple):
    """One decoded image.

    Attributes:
        pixels_3SS: uint8, red, green, blue.
        digest: SHA-256 of the file as 64 hexadecimal digits.
        one_colour: whether it came out (almost) one colour (`vqa.data.images.is_one_colour`).
        size: width and height of the whole image, upright; in pixels, or fewer where decoding scales down.
    """

    pixels_3SS: Tensor
    digest: str
    one_colour: bool = False
    size: tuple[int, int] = (1, 1)


def squash(image: Image.Image, side: int, interpolation: Image.Resampling) -> Image.Image:
    """The whole image, its aspect ratio changed to a square."""
    return image.resize((side, side), interpolation)


def centre_crop(image: Image.Image, side: int, interpolation: Image.Resampling) -> Image.Image:
    """The shorter edge scaled to `side`, what sticks out of the middle square cut off."""
    return ImageOps.fit(image, (side, side), interpolation)


def crop_scaled(image: Image.Image, edge: int, side: int, interpolation: Image.Resampling) -> Image.Image:
    """The shorter edge scaled to `edge`, and the middle `side` pixels of both kept.

    Pixel for pixel what torchvision's `ImageClassification` does to a Pillow image with `resize_size=edge` and
    `crop_size=side`, the rounding of the longer edge (down) and of the crop's place (half to even) included.

    Raises:
        ValueError: an image so long and thin that scaled it would have more than `MOST_PIXELS`.
    """
    longer = edge * max(image.size) // min(image.size)
    if edge * longer > MOST_PIXELS:
        size = f"{image.width:,} x {image.height:,} pixels"
        raise ValueError(f"{size} are too long and thin to scale the shorter edge to {edge}; crop the image")
    width, height = (edge, longer) if image.width <= image.height else (longer, edge)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.resize((width, height), interpolation).crop((left, top, left + side, top + side))


def letterbox(image: Image.Image, side: int, interpolation: Image.Resampling) -> Image.Image:
    """The longer edge scaled to `side`, the rest filled with the ImageNet mean colour; nothing cut or distorted."""
    return ImageOps.pad(image, (side, side), interpolation, color=PADDING_COLOUR)


RESIZE_MODES: dict[str, Callable[[Image.Image, int, Image.Resampling], Image.Image]] = {
    "squash": squash,
    CENTRE_CROP: centre_crop,
    "letterbox": letterbox,
}


def as_file(image: Any) -> ImageFile:
    """An image in any of the forms that people hold one in, as a file.

    Args:
        image: a path, the bytes of a file, a Pillow image, or uint8 pixels `[H, W]`, `[H, W, 1]`, `[H, W, 3]` or
            `[H, W, 4]`, of a tensor also `[1, H, W]` or `[3, H, W]`.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(image, str | os.PathLike):
        return Path(image)
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    if isinstance(image, Tensor):
        image = image.movedim(0, -1) if image.ndim == 3 and image.shape[0] in (1, 3) else image
        image = image.cpu().numpy()
    if isinstance(image, np.ndarray):
        image = _from_pixels(image)
    if not isinstance(image, Image.Image):
        raise InputError(f"an image is a path, bytes, a Pillow image or an array of pixels, not {image!r:.60}")
    content = io.BytesIO()
    with naming(b"", 0):
        whole = upright(image)
        if is_sixteen_bit(whole):  # which its 32 bits would not say in a file
            whole = whole.convert("I;16")
        if whole.mode in KEPT_AS_PNG:
            whole.save(content, format="PNG", compress_level=1, exif=b"")  # turned already
        elif value_type(whole):
            whole.save(content, format="TIFF", exif=b"")
        else:
            eight_bit = to_rgba(whole) if whole.has_transparency_data else whole.convert("RGB")
            eight_bit.save(content, format="PNG", compress_level=1)
    return content.getvalue()


def is_sixteen_bit(image: Image.Image) -> bool:
    """Whether Pillow holds 16-bit pixels in 32 bits; an image of unknown origin is taken for one where they fit."""
    if image.mode != "I" or image.format not in (None, *SIXTEEN_BIT_FORMATS):
        return False
    value_HW = np.asarray(image)
    return bool(value_HW.min(initial=0) >= 0 and value_HW.max(initial=0) <= FULL_RANGE.uint16)


def _from_pixels(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        shape = " x ".join(map(str, pixels.shape))
        raise InputError(f"an array of pixels is uint8, [H, W] or [H, W, 3], not {pixels.dtype} {shape}")
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def load_image(file: ImageFile, preparation: Preparation) -> DecodedImage:
    """Read, turn upright, convert to RGB (`vqa.data.images`) and scale one image.

    Scaled with antialiasing, as Pillow does it (the same as torchvision's `Resize` on a Pillow image).

    Raises:
        InputError: when the file is missing, is no image, is damaged, or has more than `MOST_PIXELS`. The message
            names the file.
    """
    content, side = content_of(file), preparation.size
    least = preparation.resize_to or side
    whole = decode(content, file, preparation.decoding, least if preparation.scaled_decoding else None)
    interpolation = INTERPOLATIONS[preparation.interpolation]
    if preparation.resize_to is None:
        scaled = RESIZE_MODES[preparation.resize](whole, side, interpolation)
    else:
        try:
            scaled = crop_scaled(whole, preparation.resize_to, side, interpolation)
        except ValueError as error:
            raise InputError(f"{name_of(file)}: {error}") from None
    pixels_SS3 = torch.from_numpy(np.array(scaled, dtype=np.uint8))
    one_colour = is_one_colour(whole if preparation.resize == "letterbox" else scaled)  # its bars are another
    return DecodedImage(pixels_SS3.permute(2, 0, 1), hashlib.sha256(content).hexdigest(), one_colour, whole.size)


def require_files(images: ImageTable, root: Path | None = None) -> None:
    """Stop before any work when images are not where they should be.

    Args:
        root: the data set's folder, where it is known; what lies there explains why images are not found.

    Raises:
        InputError: with the number of missing files, the first of them, and why they are not found.
    """
    missing = [path for path in dict.fromkeys(images.paths) if not path.is_file()]
    if missing:
        raise InputError(missing_sentence(images, missing, root))
