"""From an image file to 8-bit RGB: the one way in which every part of vqa decodes images.

What the file's numbers mean is stated in a `Decoding`, which feature caches and runs keep: on which background
transparency is composed, and which value of 16-bit, 32-bit and floating-point pixels is white.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageColor

from vqa.errors import InputError
from vqa.files import open_regular, read_bytes
from vqa.progress import progress_bar

MOST_PIXELS = 64_000_000  # of an image, so that a thread that decodes one takes at most a quarter of a gigabyte
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
ONE_COLOUR_LEVELS, ONE_COLOUR_SHARE = 9, 0.999  # so many neighbouring values of 256 hold this share of the pixels
SIXTEEN_BIT_FORMATS = ("PNG", "PPM")  # whose 32-bit pixels in Pillow are 16-bit ones in the file
JPEG = b"\xff\xd8\xff"  # how such a file begins: 8 bits, always
COLOUR = re.compile(r"white|black|#[0-9a-f]{6}")
AUTO, FULL = "auto", "full"  # rules for `HighestValues`

ImageFile = Path | bytes  # where the file of an image is, or what is in it


class HighestValues(NamedTuple):
    """The value that becomes white, by type of pixel; 0 becomes black, what lies outside is clipped.

    The defaults are the full range of each type, for floating point 0 to 1.
    """

    uint16: float = 65_535.0
    int32: float = 2_147_483_647.0
    float32: float = 1.0


FULL_RANGE = HighestValues()


@dataclass(frozen=True)
class Decoding:
    """What is done with pixels that are not plain 8-bit ones.

    Attributes:
        background: "white", "black" or "#rrggbb", on which transparent pixels are composed; None drops the alpha
            channel, as caches that state no background did.
        highest: the value that becomes white, by type of pixel; None is the way of caches that state no range:
            65,535 for all whole numbers, rounded down, and floating-point images are refused.
    """

    background: str | None = "white"
    highest: HighestValues | None = FULL_RANGE

    def as_json(self) -> dict[str, Any]:
        """What a feature cache states under `preprocessing`."""
        stated: dict[str, Any] = {} if self.background is None else {"background": self.background}
        return stated if self.highest is None else stated | {"range": self.highest._asdict()}

    @classmethod
    def stated_in(cls, preprocessing: Mapping[str, Any]) -> "Decoding":
        """How the images of a cache or run were decoded that states this."""
        found = preprocessing.get("range")
        return cls(preprocessing.get("background"), None if found is None else HighestValues(**found))

    def of_images(self, paths: Iterable[Path]) -> "Decoding":
        """The same with the highest values that these images hold."""
        return replace(self, highest=highest_values(paths))


class Framing(NamedTuple):
    """Which square of an image became the image of `size` pixels that an encoder saw.

    Attributes:
        resize: how an image becomes square; "centre-crop" sees a part of it, "letterbox" more than it, all others it.
        kept: with "centre-crop" the share of the shorter edge that is kept.
    """

    resize: str = "squash"
    kept: float = 1.0

    def square(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the square in pixels of an image of this size.

        >>> Framing("centre-crop", 0.5).square(300, 200), Framing("letterbox").square(300, 200)
        ((100.0, 50.0, 200.0, 150.0), (0.0, -50.0, 300.0, 250.0))
        """
        if self.resize not in ("centre-crop", "letterbox"):
            return 0.0, 0.0, float(width), float(height)
        side = self.kept * min(width, height) if self.resize == "centre-crop" else float(max(width, height))
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side


ON_WHITE = Decoding()  # the default
STATED = ("background", "range")  # the keys of `Decoding.as_json`


def background_colour(name: str) -> str:
    """A background as caches state it.

    >>> background_colour("#FFFFFF"), background_colour("#80ff00")
    ('white', '#80ff00')

    Raises:
        InputError: when it is no colour.
    """
    name = {"#ffffff": "white", "#000000": "black"}.get(name.lower(), name.lower())
    if not COLOUR.fullmatch(name):
        raise InputError(f"background {name[:40]!r}: choose white, black or a colour such as #8080ff")
    return name


def read_rgb(file: ImageFile, decoding: Decoding = ON_WHITE) -> Image.Image:
    """Read, turn upright and convert one image to RGB, in its own size; raises InputError as `decode` does."""
    return decode(content_of(file), file, decoding)


def decode(content: bytes, file: ImageFile, decoding: Decoding, least_side: int | None = None) -> Image.Image:
    """One image, upright, as 8-bit RGB.

    Args:
        content: the whole file.
        file: where it is from, for messages.
        least_side: JPEG files may be scaled down by 2, 4 or 8 while they are decoded, not below this side.

    Raises:
        InputError: when it is no image, is damaged, or has more than `MOST_PIXELS`. The message names the file.
    """
    with naming(file, len(content)), Image.open(io.BytesIO(content)) as image:
        _check_size(file, image)
        if least_side is not None:
            image.draft(None, (least_side, least_side))  # only JPEG can
        return to_rgb(upright(image), decoding)


def content_of(file: ImageFile) -> bytes:
    """The whole file; raises InputError when it cannot be read."""
    return file if isinstance(file, bytes) else read_bytes(file)


def name_of(file: ImageFile) -> str:
    """What messages call it."""
    return "the image that was given" if isinstance(file, bytes) else str(file)


def _check_size(file: ImageFile, image: Image.Image) -> None:
    """Raises InputError before an image is decoded that is too large to decode several of at once."""
    if image.width * image.height > MOST_PIXELS:
        size = f"{image.width:,} x {image.height:,} pixels"
        raise InputError(f"{name_of(file)}: {size} are too many ({MOST_PIXELS:,} at most); scale the image down")


@contextmanager
def naming(file: ImageFile, size: int) -> Iterator[None]:
    """Turn whatever a decoder raises into an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{name_of(file)}: {error}") from None
    except Image.UnidentifiedImageError:
        raise InputError(f"{name_of(file)}: not an image that Pillow can read ({size:,} bytes)") from None
    except Exception as error:  # a damaged file makes decoders raise almost anything
        raise InputError(f"{name_of(file)}: the image is damaged: {error}") from error


def upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says; Pillow's `exif_transpose` fails where any other EXIF value is odd."""
    image.load()  # some formats state it after the pixels
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.format = image.format  # which says what its numbers mean
    return turned


def to_rgb(image: Image.Image, decoding: Decoding = ON_WHITE) -> Image.Image:
    """Any image as 8-bit RGB; opaque 8-bit images come out as Pillow converts them, bit for bit.

    Raises:
        ValueError: for floating-point pixels where the decoding states no range.
    """
    kind = value_type(image)
    if kind is not None:
        return _scaled(image, kind, decoding)
    if decoding.background is None:
        return (image.convert("RGBA") if "transparency" in image.info else image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    return compose(to_rgba(image), decoding.background)


def to_rgba(image: Image.Image) -> Image.Image:
    """An image with transparency as RGBA; Pillow converts premultiplied grey in two steps only."""
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def compose(image: Image.Image, background: str) -> Image.Image:
    """An RGBA image on a background, as RGB.

    One that would vanish on it, such as a white drawing on white, is composed on black or white instead, whichever
    is farther from the background.
    """
    if image.getchannel("A").getextrema()[0] == 255:
        return image.convert("RGB")  # opaque
    composed = _on(image, background)
    if not is_one_colour(composed):
        return composed
    contrary = _on(image, "black" if sum(ImageColor.getrgb(background)[:3]) > 3 * 127 else "white")
    return composed if is_one_colour(contrary) else contrary


def _on(image: Image.Image, colour: str) -> Image.Image:
    canvas = Image.new("RGBA", image.size, colour)
    canvas.alpha_composite(image)
    return canvas.convert("RGB")


def is_one_colour(image: Image.Image) -> bool:
    """Whether an RGB image is (almost) one colour: in each channel, 99.9% of the pixels within 9 of 256 levels."""
    total_C256 = np.cumsum(np.array(image.histogram()).reshape(-1, 256), axis=1)
    within = total_C256[:, ONE_COLOUR_LEVELS - 1 :].copy()
    within[:, 1:] -= total_C256[:, :-ONE_COLOUR_LEVELS]
    return bool((within.max(axis=1) >= ONE_COLOUR_SHARE * total_C256[:, -1]).all())


def value_type(image: Image.Image) -> str | None:
    """The field of `HighestValues` that scales an image; None for 8-bit and two-valued images."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BIT_FORMATS):
        return "uint16"
    return {"I": "int32", "F": "float32"}.get(image.mode)


def _scaled(image: Image.Image, kind: str, decoding: Decoding) -> Image.Image:
    """A grey image of large numbers, as RGB."""
    if decoding.highest is None:
        if kind == "float32":
            raise ValueError("floating-point pixels have no defined range; convert it to 8 bits first")
        # Pillow's own conversion clips at 255, which makes a 16-bit image white.
        grey_HW = (np.clip(np.asarray(image), 0, 65535) // 257).astype(np.uint8)
    else:
        highest = getattr(decoding.highest, kind)
        share_HW = np.asarray(image, dtype=np.float64) / highest  # a double holds every 32-bit number
        share_HW = np.nan_to_num(share_HW, nan=0.0, posinf=1.0, neginf=0.0)
        grey_HW = np.rint(share_HW.clip(0, 1) * 255).astype(np.uint8)
    grey = Image.fromarray(grey_HW)
    clear = image.info.get("transparency")
    if decoding.background is None or not isinstance(clear, int):
        return grey.convert("RGB")
    alpha = Image.fromarray(np.where(np.asarray(image) == clear, 0, 255).astype(np.uint8))
    return compose(Image.merge("LA", (grey, alpha)).convert("RGBA"), decoding.background)


def highest_values(paths: Iterable[Path], workers: int = 4) -> HighestValues:
    """The largest value of each type of pixel over some images, behind a progress bar.

    Only images of more than 8 bits are decoded. A type that none of them has, or only with values up to 0, keeps its
    full range; images that cannot be read are passed over.
    """
    files, found = list(dict.fromkeys(paths)), dict[str, float]()
    with ThreadPoolExecutor(workers, thread_name_prefix="range") as pool, progress_bar() as bar:
        task = bar.add_task("Looking for images of more than 8 bits", total=len(files), note="")
        for kind, value in pool.map(_largest, files):
            bar.advance(task)
            if kind and value > 0:
                found[kind] = max(value, found.get(kind, 0.0))
    return HighestValues(**found)


def _largest(path: Path) -> tuple[str | None, float]:
    """The type of an image's pixels and their largest finite value; None and 0 for 8 bits."""
    try:
        with open_regular(path) as file:
            if file.read(len(JPEG)) == JPEG:
                return None, 0.0
            file.seek(0)
            with naming(path, 0), Image.open(file) as image:
                kind = value_type(image)
                if kind is None:
                    return None, 0.0
                _check_size(path, image)
                value_HW = np.asarray(image)
                return kind, float(np.max(value_HW, where=np.isfinite(value_HW), initial=0))
    except (OSError, InputError):
        return None, 0.0  # the extraction itself names it


def ranges(highest: HighestValues) -> str:
    """The values that are not those of the full range, in words; "" where all are.

    >>> ranges(HighestValues(uint16=4095.0))
    'uint16: 0 to 4095'
    """
    full = FULL_RANGE._asdict()
    other = {kind: value for kind, value in highest._asdict().items() if value != full[kind]}
    return ", ".join(f"{kind}: 0 to {value:.10g}" for kind, value in other.items())


def name_first(paths: Sequence[Path], most: int = 3) -> str:
    """The first few files by name, and how many more there are."""
    more = f" and {len(paths) - most:,} more" if len(paths) > most else ""
    return ", ".join(path.name for path in paths[:most]) + more
