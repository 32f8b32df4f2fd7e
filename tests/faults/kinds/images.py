"""Damaged, odd and hostile images, for extract, predict and data check."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from faults.case import Case
from faults.mutate import UNFILES, replace_by
from faults.world import ENCODER, RUN, first_image

EXTRACT = ["features", "extract", "--data", "data", "--format", "vqa_v2", "--split", "val", *ENCODER, "--workers", "1",
           "--no-compile", "--out", "new.h5"]  # fmt: skip
CHECK = ["data", "check", "data", "--format", "vqa_v2", "--images"]
PREDICT = ["predict", RUN, "image.png", "what is it?"]
READERS = {"predict": PREDICT, "extract": EXTRACT, "check": CHECK}
EITHER = frozenset({0, 2})


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def _shape(mode: str, background: tuple[int, ...], colour: tuple[int, ...]) -> Image.Image:
    image = Image.new(mode, (40, 40), background)
    image.paste(colour, (10, 10, 30, 30))
    return image


def png(width: int, height: int, body: bytes = b"", kind: int = 2, depth: int = 8) -> bytes:
    """A PNG whose head states this size, with this (compressed) content."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG with 60 MB of compressed text."""
    image = encoded(Image.new("RGB", (8, 8)))
    text = zlib.compress(b"x" * 60_000_000)
    data = b"key\x00\x00" + text
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    return image[:33] + chunk + image[33:]


ramp = np.arange(1600, dtype=np.uint16).reshape(40, 40)
IMAGES: dict[str, Callable[[], bytes]] = {
    "black on transparent": lambda: encoded(_shape("RGBA", (0, 0, 0, 0), (0, 0, 0, 255))),
    "white on transparent": lambda: encoded(_shape("RGBA", (255, 255, 255, 0), (255, 255, 255, 255))),
    "grey with alpha": lambda: encoded(_shape("LA", (0, 0), (0, 255))),
    "a palette with transparency": lambda: encoded(Image.new("P", (40, 40)), transparency=0),
    "16 bit of small values": lambda: encoded(Image.fromarray(ramp // 8)),
    "16 bit of large values": lambda: encoded(Image.fromarray(ramp * 40)),
    "16 bit TIFF": lambda: encoded(Image.fromarray(ramp), "TIFF"),
    "32 bit TIFF": lambda: encoded(Image.fromarray(ramp.astype(np.int32)), "TIFF"),
    "float TIFF": lambda: encoded(Image.fromarray(ramp.astype(np.float32) / 1600), "TIFF"),
    "float TIFF of NaN": lambda: encoded(Image.fromarray(np.full((40, 40), np.nan, np.float32)), "TIFF"),
    "float TIFF of infinity": lambda: encoded(Image.fromarray(np.full((40, 40), np.inf, np.float32)), "TIFF"),
    "one bit": lambda: encoded(Image.new("1", (40, 40), 1)),
    "CMYK": lambda: encoded(Image.new("CMYK", (40, 40), (9, 99, 9, 0)), "JPEG"),
    "one pixel": lambda: encoded(Image.new("RGB", (1, 1))),
    "one row": lambda: encoded(Image.new("RGB", (5000, 1))),
    "one column": lambda: encoded(Image.new("RGB", (1, 5000))),
    "an animation": lambda: encoded(
        Image.new("P", (9, 9)), "GIF", save_all=True, append_images=[Image.new("P", (9, 9))]
    ),
    "WebP": lambda: encoded(Image.new("RGB", (40, 40), (1, 2, 3)), "WEBP"),
    "BMP": lambda: encoded(Image.new("RGB", (40, 40), (1, 2, 3)), "BMP"),
    "half a PNG": lambda: encoded(Image.effect_noise((40, 40), 50))[:700],
    "half a JPEG": lambda: encoded(Image.effect_noise((40, 40), 50).convert("RGB"), "JPEG")[:600],
    "only a head": lambda: encoded(Image.new("RGB", (40, 40)))[:33],
    "a size of 0": lambda: png(0, 0),
    "a size of 2**31": lambda: png(2**31 - 1, 2**31 - 1),
    "a size of 60,000 x 60,000": lambda: png(60_000, 60_000),
    "a bomb of 20,000 x 20,000": lambda: png(20_000, 20_000, bytes(20_000 * 20_001 // 8), 0, 1),
    "a wide size": lambda: png(2**31 - 1, 1),
    "an unknown colour type": lambda: png(5, 5, kind=5),
    "an unknown depth": lambda: png(5, 5, depth=3),
    "a bomb of text": text_bomb,
    "a broken check sum": lambda: encoded(Image.new("RGB", (40, 40)))[:-20] + bytes(20),
    "orientation 99": lambda: encoded(Image.new("RGB", (40, 40)), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"),
    "a text": lambda: b"not an image",
    "an SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "a PDF": lambda: b"%PDF-1.4 nothing",
    "an EPS": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "a zip": lambda: b"PK\x03\x04nothing",
    "an XBM": lambda: b"#define a_width 9999999\n#define a_height 9999999\nstatic char a_bits[] = {",
    "a PPM of 10**9 columns": lambda: b"P6 1000000000 1 255\n",
    "a PPM of a negative size": lambda: b"P6 -5 -5 255\n",
    "an ICO of nothing": lambda: b"\x00\x00\x01\x00\xff\xff" + bytes(40),
    "a TGA of a huge size": lambda: b"\x00\x00\x02" + bytes(9) + b"\xff\xff\xff\xff\x18\x00",
    "an ICNS": lambda: b"icns\x00\x00\x00\x08",
    "an FLI": lambda: b"\x00\x00\x00\x00\x11\xaf" + bytes(200),
}
ORDINARY = {"one bit", "CMYK", "WebP", "BMP", "grey with alpha", "16 bit of large values"}


def placed(content: bytes | Callable[[], bytes], image: bool) -> Callable[[Path], object]:
    """Put an image into the data set, or beside it as image.png."""

    def prepare(folder: Path) -> None:
        path = folder / "image.png" if image else first_image(folder)
        path.write_bytes(content() if callable(content) else content)

    return prepare


def cases() -> Iterator[Case]:
    names = list(READERS)
    for number, (what, make) in enumerate(IMAGES.items()):
        for reader in dict.fromkeys(("predict", names[1 + number % 2])):
            allowed = {"predict": EITHER, "extract": EITHER, "check": EITHER | {1}}[reader]
            if what in ORDINARY:
                allowed = frozenset({0}) if reader != "check" else allowed
            yield Case(f"images: {reader}, {what}", READERS[reader], placed(make, reader == "predict"), allowed)
    for kind in UNFILES:
        for reader, typed in READERS.items():

            def prepare(folder: Path, kind: str = kind, reader: str = reader) -> None:
                path = folder / "image.png" if reader == "predict" else first_image(folder)
                if reader == "predict":
                    path.write_bytes(encoded(Image.effect_noise((40, 40), 50)))
                replace_by(path, kind)

            sound = kind == "flipped bytes"
            allowed = frozenset({1, 2}) if reader == "check" else frozenset({2})
            yield Case(f"images: {reader}, the file is {kind}", typed, prepare, allowed | {0} if sound else allowed)
    for name in ("nowhere.png", "data", "n" * 5000, "a\x00b", "/dev/zero", "/proc/self/mem", "", "[/b].png", "-"):
        yield Case(f"images: predict {name[:12]!r}", ["predict", RUN, name, "what?"])
    yield Case("images: a folder that may not be entered", EXTRACT, closed, EITHER)
    yield Case("images: all in one colour are counted", CHECK, lambda folder: every(folder, "black"), EITHER | {1},
               says=("colour",))  # fmt: skip
    yield Case("images: extract, all in one colour are counted", EXTRACT, lambda folder: every(folder, "black"), EITHER,
               says=("colour",))  # fmt: skip
    yield Case("images: extract, 16 bit of small values are not black", EXTRACT, small_values, EITHER,
               after=features_differ)  # fmt: skip
    yield Case("images: extract, shapes on transparent are seen", EXTRACT, transparent, EITHER, after=features_differ)
    yield Case("images: copies are folded", CHECK, lambda folder: every(folder, "copy"), EITHER | {1},
               after=lambda _: "")  # fmt: skip


def closed(folder: Path) -> None:
    """A folder without permission to search; root may all the same."""
    first_image(folder).parent.chmod(0o000)


def every(folder: Path, what: str) -> None:
    """All images of the val split black, or copies of one."""
    content = encoded(Image.new("RGB", (64, 64)), "JPEG") if what == "black" else first_image(folder).read_bytes()
    for path in first_image(folder).parent.iterdir():
        path.write_bytes(content)


def small_values(folder: Path) -> None:
    for number, path in enumerate(sorted(first_image(folder).parent.iterdir())):
        pixels = np.random.default_rng(number).integers(0, 4000, (64, 64)).astype(np.uint16) // 16
        path.write_bytes(encoded(Image.fromarray(pixels), "PNG"))


def transparent(folder: Path) -> None:
    """Black shapes on transparent, each another."""
    for number, path in enumerate(sorted(first_image(folder).parent.iterdir())):
        image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
        image.paste((0, 0, 0, 255), (number % 30, 5, 40, 20 + number % 40))
        path.write_bytes(encoded(image))


def features_differ(folder: Path) -> str:
    """Whether images that differ have features that differ."""
    import h5py

    path = folder / "new.h5"
    if not path.is_file():
        return ""
    with h5py.File(path) as file:
        features = file["features"][:][file["done"][:] == 1]
    return "all features are one: the images have become one colour" if len(np.unique(features, axis=0)) < 2 else ""
