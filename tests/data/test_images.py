"""Images of every mode come out visible: transparency composed, large numbers scaled, 8-bit opaque ones untouched."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image, ImageColor

from vqa.data.images import (
    ON_WHITE,
    Decoding,
    HighestValues,
    background_colour,
    decode,
    highest_values,
    is_one_colour,
    ranges,
    read_rgb,
    to_rgb,
)
from vqa.errors import InputError

OPAQUE = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "RGBX")
CLEAR = ("LA", "PA", "RGBA", "La", "RGBa")
BEFORE = Decoding(None, None)  # of caches that state neither
SCENE = np.random.default_rng(0).integers(0, 256, (12, 10, 4), dtype=np.uint8)


def scene(mode: str, alpha: bool) -> Image.Image:
    """Noise in a mode, with its noisy alpha or opaque."""
    pixels = SCENE.copy()
    if not alpha:
        pixels[..., 3] = 255
    image = Image.fromarray(pixels)
    if mode in ("LA", "La"):
        grey = image.convert("LA")
        return grey.convert("La") if mode == "La" else grey
    if mode == "PA":
        flat = image.convert("RGB").quantize(16).convert("PA")
        flat.putalpha(image.getchannel("A"))
        return flat
    if mode in ("RGBA", "RGBa"):
        return image.convert(mode)
    return image.convert("RGB").convert(mode)


def by_hand(image_RGBA: Image.Image, colour: str) -> np.ndarray:
    pixels = np.asarray(image_RGBA, dtype=np.float64)
    alpha = pixels[..., 3:] / 255
    return pixels[..., :3] * alpha + np.array(ImageColor.getrgb(colour), dtype=np.float64) * (1 - alpha)


@pytest.mark.parametrize("mode", [*OPAQUE, *CLEAR])
@pytest.mark.parametrize("colour", ["white", "black", "#8040ff"])
def test_opaque_images_are_pillows_own_to_the_bit(mode: str, colour: str) -> None:
    image = scene(mode, alpha=False)
    plain = {"La": lambda: image.convert("LA").convert("RGB"), "RGBa": lambda: image.convert("RGBA").convert("RGB")}
    expected = plain.get(mode, lambda: image.convert("RGB"))()
    for decoding in (Decoding(colour), ON_WHITE):
        assert np.array_equal(np.asarray(to_rgb(image, decoding)), np.asarray(expected)), mode


@pytest.mark.parametrize("mode", CLEAR)
@pytest.mark.parametrize("colour", ["white", "black", "#8040ff"])
def test_transparency_is_composed_as_pillow_and_arithmetic_do(mode: str, colour: str) -> None:
    image = scene(mode, alpha=True)
    whole = (image.convert("LA") if mode == "La" else image).convert("RGBA")
    composed = np.asarray(to_rgb(image, Decoding(colour)), dtype=np.float64)
    assert np.abs(composed - by_hand(whole, colour)).max() <= 1.0
    pasted = Image.new("RGB", image.size, colour)
    pasted.paste(whole, mask=whole.getchannel("A"))
    assert np.abs(composed - np.asarray(pasted, dtype=np.float64)).max() <= 1.0


@settings(max_examples=60, deadline=None)
@given(
    pixels=st_numpy.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(4))),
    colour=st.sampled_from(["white", "black", "#123456"]),
)
def test_any_rgba_is_composed_on_the_background_or_on_the_contrary(pixels: np.ndarray, colour: str) -> None:
    image = Image.fromarray(pixels)
    out = np.asarray(to_rgb(image, Decoding(colour)), dtype=np.float64)
    near = [np.abs(out - by_hand(image, ground)).max() <= 1.0 for ground in (colour, "black", "white")]
    assert any(near)
    if np.ptp(by_hand(image, colour), axis=(0, 1)).max() > 11:  # of at most 36 pixels: far from one colour
        assert near[0]
    assert np.array_equal(np.asarray(to_rgb(image, BEFORE)), pixels[..., :3])  # caches of before: alpha dropped


@pytest.mark.parametrize("ink", [0, 255, 128])
@pytest.mark.parametrize("colour", ["white", "black", "#808080"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_a_drawing_of_any_ink_is_visible(ink: int, colour: str, mode: str, tmp_path: Path) -> None:
    pixels = np.full((30, 30, 4), ink, dtype=np.uint8)
    pixels[..., 3] = 0
    pixels[8:20, 8:20, 3] = 255
    image = Image.fromarray(pixels)
    if mode == "P":
        indices = np.where(pixels[..., 3] > 0, 1, 0).astype(np.uint8)
        image = Image.fromarray(indices, "L").convert("P")
        image.putpalette([ink] * 6)
        image.save(tmp_path / "a.png", transparency=0)
    elif mode == "PA":  # which no common format has; it comes from other programs' images in memory
        assert np.asarray(to_rgb(image.convert(mode), Decoding(colour))).std() > 5
        return
    else:
        image.convert(mode).save(tmp_path / "a.png")
    assert np.asarray(read_rgb(tmp_path / "a.png", Decoding(colour))).std() > 5


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "I;16"])
def test_a_transparent_key_colour_is_composed(mode: str, tmp_path: Path) -> None:
    """PNG's tRNS chunk in images without an alpha channel."""
    key, ink = (0, 1) if mode in ("1", "P") else (10, 200)
    values = np.full((16, 16), key, dtype=np.uint16)
    values[4:9, 4:9] = ink
    if mode == "I;16":
        write_png16(tmp_path / "a.png", values * 100, struct.pack(">H", key * 100))
    elif mode == "1":
        Image.fromarray((values * 255).astype(np.uint8)).convert("1").save(tmp_path / "a.png", transparency=0)
    elif mode == "P":
        image = Image.fromarray(values.astype(np.uint8)).convert("P")
        image.putpalette([10, 10, 10, 90, 90, 90])
        image.save(tmp_path / "a.png", transparency=0)
    else:
        image = Image.fromarray(values.astype(np.uint8)).convert(mode)
        image.save(tmp_path / "a.png", transparency=key if mode == "L" else (key,) * 3)
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.mode == mode
    out = np.asarray(read_rgb(tmp_path / "a.png", Decoding("#ff0000", HighestValues(uint16=20_000))))
    if mode != "1":  # whose shape is white, and visible on red as well
        assert out[6, 6, 0] == out[6, 6, 1]
    assert out[0, 0].tolist() == [255, 0, 0]


def write_png16(path: Path, value_HW: np.ndarray, key: bytes = b"") -> None:
    """A 16-bit grey PNG, with a transparent key."""
    height, width = value_HW.shape
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in value_HW)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0))]
    chunks += [(b"tRNS", key)] if key else []
    chunks += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    packed = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


@settings(max_examples=50, deadline=None)
@given(
    value_HW=st_numpy.arrays(np.uint16, st.tuples(st.integers(1, 5), st.integers(1, 5))),
    highest=st.integers(1, 65_535),
)
def test_sixteen_bits_are_scaled_as_stated(value_HW: np.ndarray, highest: int) -> None:
    expected = np.rint(np.clip(value_HW / highest, 0, 1) * 255)
    content = io.BytesIO()
    Image.fromarray(value_HW).save(content, "PNG")
    out = np.asarray(decode(content.getvalue(), b"", Decoding(highest=HighestValues(uint16=highest))))
    assert np.array_equal(out, np.repeat(expected[..., None], 3, axis=2))
    swapped = Image.frombytes("I;16B", value_HW.shape[::-1], value_HW.astype(">u2").tobytes())
    assert np.array_equal(np.asarray(to_rgb(swapped, Decoding(highest=HighestValues(uint16=highest)))), out)
    before = np.asarray(to_rgb(Image.fromarray(value_HW), BEFORE))[..., 0]
    assert np.array_equal(before, value_HW // 257)


def test_the_full_and_the_found_range_of_every_type(tmp_path: Path) -> None:
    value_HW = np.array([[0, 1000], [2000, 4095]])
    Image.fromarray(value_HW.astype(np.uint16)).save(tmp_path / "u16.png")
    Image.fromarray((value_HW * 2).astype(np.uint16)).save(tmp_path / "u16.tif")
    Image.fromarray(value_HW.astype(np.int32) * 100 - 7).save(tmp_path / "i32.tif")
    floats = (value_HW / 100).astype(np.float32)
    floats[0, 0] = np.nan
    Image.fromarray(floats).save(tmp_path / "f32.tif")
    floats[0, 1] = np.inf
    Image.fromarray(floats).save(tmp_path / "f32inf.tif")
    (tmp_path / "deep.pgm").write_bytes(b"P5 2 1 65535 " + struct.pack(">HH", 100, 60_000))
    Image.fromarray(SCENE[..., :3].copy()).save(tmp_path / "plain.png")
    Image.fromarray(SCENE[..., :3].copy()).save(tmp_path / "plain.jpg")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    paths = [*tmp_path.iterdir(), tmp_path / "absent.png"]
    found = highest_values(paths)
    assert found == HighestValues(60_000.0, 409_493.0, float(np.float32(40.95)))
    assert ranges(found).startswith("uint16: 0 to 60000, int32: 0 to 409493, float32: 0 to 40.9")
    assert highest_values([tmp_path / "plain.png", tmp_path / "plain.jpg"]) == HighestValues()
    auto = Decoding(highest=highest_values([tmp_path / "u16.png", tmp_path / "i32.tif", tmp_path / "f32.tif"]))
    for name in ("u16.png", "i32.tif", "f32.tif", "f32inf.tif"):
        out = np.asarray(read_rgb(tmp_path / name, auto))[..., 0]
        assert (out[0, 0], out[1, 1]) == (0, 255), name
        assert np.abs(int(out[1, 0]) - 2000 / 4095 * 255) <= 1
    assert np.asarray(read_rgb(tmp_path / "f32inf.tif", auto))[0, 1, 0] == 255
    full = {name: np.asarray(read_rgb(tmp_path / name))[1, 1, 0] for name in ("u16.png", "i32.tif", "f32.tif")}
    assert full == {"u16.png": 16, "i32.tif": 0, "f32.tif": 255}
    assert np.asarray(read_rgb(tmp_path / "deep.pgm"))[0, :, 0].tolist() == [0, 233]
    with pytest.raises(InputError, match="no defined range"):
        read_rgb(tmp_path / "f32.tif", BEFORE)


def test_a_type_without_positive_values_keeps_its_full_range(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 3), -5, dtype=np.int32)).save(tmp_path / "a.tif")
    Image.fromarray(np.full((3, 3), np.nan, dtype=np.float32)).save(tmp_path / "b.tif")
    assert highest_values([tmp_path / "a.tif", tmp_path / "b.tif"]) == HighestValues()
    assert np.asarray(read_rgb(tmp_path / "a.tif")).max() == 0


def test_what_is_stated_is_read_back_and_absence_is_the_old_way() -> None:
    for decoding in (ON_WHITE, Decoding("#010203", HighestValues(4095.0)), Decoding(None), BEFORE, Decoding("black")):
        assert Decoding.stated_in({"resize": "squash", **decoding.as_json()}) == decoding
    assert Decoding.stated_in({}) == BEFORE and BEFORE.as_json() == {}


def test_backgrounds_have_one_name_each() -> None:
    names = {"#FFFFFF": "white", "#000000": "black", "WHITE": "white", "#80Ff00": "#80ff00", "black": "black"}
    assert {given: background_colour(given) for given in names} == names
    for wrong in ("", "red", "#fff", "#12345g", "#1234567", "white\n", "x" * 5000):
        with pytest.raises(InputError, match="choose white, black") as error:
            background_colour(wrong)
        assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("share", "contrast", "expected"),
    [(0, 0, True), (0.5, 8, True), (0.5, 9, False), (0.0005, 255, True), (0.01, 255, False)],
)
def test_one_colour_means_almost_all_pixels_within_nine_levels(share: float, contrast: int, expected: bool) -> None:
    pixels = np.zeros((100, 100, 3), dtype=np.uint8)
    pixels.reshape(-1, 3)[: int(share * 10_000), 1] = contrast
    assert is_one_colour(Image.fromarray(pixels)) == expected
