"""From an image file to the bytes that an image encoder takes.

Legend: `S` side of the square image in pixels; the first 3 is the colour channel (red, green, blue).
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from vqa.data.check import MOST_PIXELS
from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.files import read_bytes

INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
ORIENTATION = 0x0112  # EXIF's tag; its values and what turns the stored image upright
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIXTEEN_BIT_GREY = ("I;16", "I;16L", "I;16B", "I;16N", "I")
PADDING_COLOUR = (124, 116, 104)  # the ImageNet mean, so that letterbox bars are about zero after normalisation


@dataclass(frozen=True)
class Preparation:
    """All that happens to an image between its file and the network.

    Attributes:
        size: side of the square image in pixels.
        resize: how it becomes square, a key of `RESIZE_MODES`.
        interpolation: a key of `INTERPOLATIONS`, always antialiased.
        scaled_decoding: JPEG files that are much too large are scaled down by 2, 4 or 8 while they are decoded.
        colours: the order of the channels that the network wants, "RGB" or "BGR".
        divisor: pixels 0 to 255 are divided by this, then `mean` is subtracted, then divided by `std`.
        mean, std: in the order of `colours`.
    """

    size: int
    resize: str = "squash"
    interpolation: str = "bilinear"
    scaled_decoding: bool = False
    colours: str = "RGB"
    divisor: float = 255.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def as_json(self) -> dict[str, Any]:
        """What a feature cache states."""
        return {
            "colours": self.colours,
            "exif_rotation": True,
            "resize": self.resize,
            "interpolation": f"{self.interpolation}, antialiased",
            "scaled_decoding": self.scaled_decoding,
            "size": [self.size, self.size],
            "scale": f"1/{self.divisor:g}",
            "mean": list(self.mean),
            "std": list(self.std),
        }


class DecodedImage(NamedTuple):
    """One decoded image.

    Attributes:
        pixels_3SS: uint8, red, green, blue.
        digest: SHA-256 of the file as 64 hexadecimal digits.
    """

    pixels_3SS: Tensor
    digest: str


def squash(image: Image.Image, side: int, interpolation: Image.Resampling) -> Image.Image:
    """The whole image, its aspect ratio changed to a square."""
    return image.resize((side, side), interpolation)


def centre_crop(image: Image.Image, side: int, interpolation: Image.Resampling) -> Image.Image:
    """The shorter edge scaled to `side`, what sticks out of the middle square cut off."""
    return ImageOps.fit(image, (side, side), interpolation)


def letterbox(image: Image.Image, side: int, interpolation: Image.Resampling) -> Image.Image:
    """The longer edge scaled to `side`, the rest filled with the ImageNet mean colour; nothing cut or distorted."""
    return ImageOps.pad(image, (side, side), interpolation, color=PADDING_COLOUR)


RESIZE_MODES: dict[str, Callable[[Image.Image, int, Image.Resampling], Image.Image]] = {
    "squash": squash,
    "centre-crop": centre_crop,
    "letterbox": letterbox,
}


ImageFile = Path | bytes  # where the file of an image is, or what is in it


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
    with _naming(b"", 0):
        to_rgb(upright(image)).save(content, format="PNG", compress_level=1)
    return content.getvalue()


def _from_pixels(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        shape = " x ".join(map(str, pixels.shape))
        raise InputError(f"an array of pixels is uint8, [H, W] or [H, W, 3], not {pixels.dtype} {shape}")
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def load_image(file: ImageFile, preparation: Preparation) -> DecodedImage:
    """Read, turn upright, convert to RGB and scale one image.

    Scaled with antialiasing, as Pillow does it (the same as torchvision's `Resize` on a Pillow image). EXIF
    rotation is applied, an alpha channel is dropped, 16-bit grey is scaled to 8 bits.

    Raises:
        InputError: when the file is missing, is no image, is damaged, or has more than `MOST_PIXELS`. The message
            names the file.
    """
    content, side = _content(file), preparation.size
    interpolation = INTERPOLATIONS[preparation.interpolation]
    with _naming(file, len(content)), Image.open(io.BytesIO(content)) as image:
        _check_size(file, image)
        if preparation.scaled_decoding:
            image.draft(None, (side, side))  # only JPEG can; never below the size that is asked for
        whole = to_rgb(upright(image))
        scaled = RESIZE_MODES[preparation.resize](whole, side, interpolation)
    pixels_SS3 = torch.from_numpy(np.array(scaled, dtype=np.uint8))
    return DecodedImage(pixels_SS3.permute(2, 0, 1), hashlib.sha256(content).hexdigest())


def read_rgb(file: ImageFile) -> Image.Image:
    """Read, turn upright and convert one image to RGB, in its own size; raises InputError as `load_image` does."""
    content = _content(file)
    with _naming(file, len(content)), Image.open(io.BytesIO(content)) as image:
        _check_size(file, image)
        return to_rgb(upright(image))


def _content(file: ImageFile) -> bytes:
    return file if isinstance(file, bytes) else read_bytes(file)


def _name(file: ImageFile) -> str:
    """What messages call it."""
    return "the image that was given" if isinstance(file, bytes) else str(file)


def _check_size(file: ImageFile, image: Image.Image) -> None:
    """Raises InputError before an image is decoded that is too large to decode several of at once."""
    if image.width * image.height > MOST_PIXELS:
        size = f"{image.width:,} x {image.height:,} pixels"
        raise InputError(f"{_name(file)}: {size} are too many ({MOST_PIXELS:,} at most); scale the image down")


@contextmanager
def _naming(file: ImageFile, size: int) -> Iterator[None]:
    """Turn whatever a decoder raises into an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{_name(file)}: {error}") from None
    except Image.UnidentifiedImageError:
        raise InputError(f"{_name(file)}: not an image that Pillow can read ({size:,} bytes)") from None
    except Exception as error:  # a damaged file makes decoders raise almost anything
        raise InputError(f"{_name(file)}: the image is damaged: {error}") from error


def upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says; Pillow's `exif_transpose` fails where any other EXIF value is odd."""
    image.load()  # some formats state it after the pixels
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as 8-bit RGB: grey, palette, CMYK, alpha, 16-bit grey.

    Raises:
        ValueError: for floating-point pixels, whose range no file states.
    """
    if image.mode in SIXTEEN_BIT_GREY:
        # Pillow's own conversion clips at 255, which makes a 16-bit image white.
        pixels = np.clip(np.asarray(image), 0, 65535) // 257
        return Image.fromarray(pixels.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range; convert it to 8 bits first")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def require_files(images: ImageTable) -> None:
    """Stop before any work when images are not where they should be.

    Raises:
        InputError: with the number of missing files and the first of them.
    """
    missing = [path for path in dict.fromkeys(images.paths) if not path.is_file()]
    if missing:
        first = "\n".join(f"  {path}" for path in missing[:5])
        raise InputError(f"{len(missing):,} of {len(images.ids):,} images are missing, first:\n{first}")
