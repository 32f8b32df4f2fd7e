"""Every kind of image file becomes the same kind of tensor, and damaged files are named."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from helpers.models import sampled
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2

from vqa.errors import InputError
from vqa.features.encoders.preprocessing import DecodedImage, Preparation, read_rgb
from vqa.features.encoders.preprocessing import load_image as load_prepared
from vqa.features.encoders.torchvision_networks import published_sizes


def load_image(path: Path, side: int, resize: str = "squash") -> DecodedImage:
    return load_prepared(path, Preparation(side, resize))


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    column, row = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([column, row, np.full_like(row, 30)], axis=-1).astype(np.uint8)


def test_squash_equals_torchvisions_resize(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(gradient()).save(path)
    image = load_image(path, 24)
    expected = v2.functional.pil_to_tensor(v2.Resize((24, 24))(Image.open(path)))
    assert torch.equal(image.pixels_3SS, expected)
    assert image.pixels_3SS.dtype == torch.uint8
    assert image.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_scaled_decoding_is_almost_the_same_image(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(gradient(400, 600)).save(path, quality=95)
    whole = load_prepared(path, Preparation(64)).pixels_3SS.int()
    scaled = load_prepared(path, Preparation(64, scaled_decoding=True)).pixels_3SS.int()
    assert 0 < (whole - scaled).abs().float().mean() < 3
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    assert load_prepared(tmp_path / "a.png", Preparation(8, scaled_decoding=True)).pixels_3SS.shape == (3, 8, 8)
    assert Preparation(8).as_json() != Preparation(8, scaled_decoding=True).as_json()


def test_centre_crop_and_letterbox(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 20:40] = 255  # the middle third is white, and is all that a centre crop sees
    Image.fromarray(pixels).save(path)
    assert (load_image(path, 20, "centre-crop").pixels_3SS == 255).all()
    boxed = load_image(path, 60, "letterbox").pixels_3SS
    assert boxed[:, 0, 0].tolist() == [124, 116, 104]
    assert torch.equal(boxed[:, 20:40].permute(1, 2, 0), torch.from_numpy(pixels))


def published() -> list[tuple[str, str]]:
    """Every network of torchvision with each of its published weights."""
    names = torchvision.models.list_models(module=torchvision.models)
    return [(name, one.name) for name in names for one in torchvision.models.get_model_weights(name)]


def by_torchvision(path: Path, name: str, weights: str) -> Tensor:
    """The pixels that torchvision's transforms of these weights normalise: their output, turned back to 0 to 255."""
    transforms = torchvision.models.get_model_weights(name)[weights].transforms()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (transforms.mean, transforms.std))
    with Image.open(path) as image:
        return ((transforms(image) * std + mean) * 255).round().to(torch.uint8)


def as_published(path: Path, name: str, weights: str) -> Tensor:
    edge, side = published_sizes(name, weights)
    interpolation = torchvision.models.get_model_weights(name)[weights].transforms().interpolation.value
    prepared = Preparation(side, "centre-crop", edge, interpolation=interpolation)
    return load_prepared(path, prepared).pixels_3SS


def noise(path: Path, width: int, height: int) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize(("name", "weights"), sampled(published()))
def test_every_published_weights_are_resized_and_cropped_as_torchvision_does(
    tmp_path: Path, name: str, weights: str
) -> None:
    path = noise(tmp_path / "a.png", 331, 257)
    assert torch.equal(as_published(path, name, weights), by_torchvision(path, name, weights))


@pytest.mark.parametrize("size", [(640, 427), (427, 641), (5, 3), (1, 1), (3, 200), (1999, 1501), (224, 224)])
@pytest.mark.parametrize(
    ("name", "weights"),
    [("resnet152", "IMAGENET1K_V1"), ("resnet50", "IMAGENET1K_V2"), ("efficientnet_b3", "IMAGENET1K_V1"),
     ("inception_v3", "IMAGENET1K_V1"), ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")],
)  # fmt: skip
def test_odd_sizes_are_resized_and_cropped_as_torchvision_does(
    tmp_path: Path, name: str, weights: str, size: tuple[int, int]
) -> None:
    path = noise(tmp_path / "a.png", *size)
    assert torch.equal(as_published(path, name, weights), by_torchvision(path, name, weights))


def test_512_to_448_is_what_the_usual_composition_of_torchvision_gives(tmp_path: Path) -> None:
    """As in the preprocessing of show_ask_attend_answer: Resize(448 / 0.875), CenterCrop(448)."""
    path = noise(tmp_path / "a.png", 640, 481)
    composed = v2.Compose([v2.Resize(int(448 / 0.875)), v2.CenterCrop(448), v2.PILToTensor()])
    with Image.open(path) as image:
        assert torch.equal(load_prepared(path, Preparation(448, "centre-crop", 512)).pixels_3SS, composed(image))


def test_an_image_too_thin_to_be_scaled_is_named(tmp_path: Path) -> None:
    path = tmp_path / "thin.png"
    Image.new("1", (1_000_000, 1)).save(path)
    with pytest.raises(InputError, match=r"thin.png: 1,000,000 x 1 pixels are too long and thin"):
        load_prepared(path, Preparation(224, "centre-crop", 256))


def test_scaled_decoding_keeps_what_the_crop_needs(tmp_path: Path) -> None:
    """Scaled down to no less than the edge that is cropped: nearly the image that whole decoding gives."""
    path = tmp_path / "a.jpg"
    Image.fromarray(gradient(400, 600)).save(path, quality=95)
    both = [
        load_prepared(path, Preparation(64, "centre-crop", 90, scaled_decoding=s)).pixels_3SS for s in (False, True)
    ]
    assert 0 < (both[0].int() - both[1].int()).abs().float().mean() < 3


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "P", "YCbCr"])
def test_colour_modes_give_the_same_image(tmp_path: Path, mode: str) -> None:
    flat = np.full((16, 16, 3), (200, 100, 50), dtype=np.uint8)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    options = (
        {"compression": "tiff_lzw"} if mode == "YCbCr" else {}
    )  # Pillow before 13 cannot read its uncompressed ones
    Image.fromarray(flat).convert(mode).save(path, **options)
    middle = load_image(path, 8).pixels_3SS[:, 4, 4].int()
    assert (middle - torch.tensor([200, 100, 50])).abs().max() <= 4


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_grey_images(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    if mode == "I;16":
        Image.fromarray(np.full((16, 16), 257 * 128, dtype=np.uint16)).save(path)
        assert Image.open(path).mode.startswith("I")
    else:
        Image.fromarray(np.full((16, 16), 255 if mode == "1" else 128, dtype=np.uint8)).convert(mode).save(path)
    pixels = load_image(path, 8).pixels_3SS
    assert pixels.unique().tolist() == [255 if mode == "1" else 128]


def test_palette_with_transparency(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "a.png"
    image = Image.fromarray(gradient()).quantize(8)
    image.save(path, transparency=bytes(range(8)))
    assert load_image(path, 8).pixels_3SS.shape == (3, 8, 8)
    assert not recwarn.list


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    upright = np.zeros((16, 16, 3), dtype=np.uint8)
    upright[:8] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: to be rotated by 90 degrees clockwise
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "a.png", exif=exif)
    assert torch.equal(load_image(tmp_path / "a.png", 16).pixels_3SS.permute(1, 2, 0), torch.from_numpy(upright))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_pillows_own(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(gradient(20, 30)).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(np.asarray(read_rgb(tmp_path / "a.png")), expected)


def test_odd_exif_values_spoil_no_image(tmp_path: Path) -> None:
    entries = [(0x0112, 3, 1, b"\6\0\0\0"), (0x0100, 2, 4, b"abcd"), (0x9003, 3, 1, b"abcd")]
    packed = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)  # a width that is text, a date that is none
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + b"\0\0\0\0"
    Image.fromarray(gradient(20, 30)).save(tmp_path / "a.jpg", exif=exif)
    assert read_rgb(tmp_path / "a.jpg").size == (20, 30)  # upright
    assert load_image(tmp_path / "a.jpg", 8).pixels_3SS.shape == (3, 8, 8)


def test_unreadable_images_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str, message: str) -> None:
        with pytest.raises(InputError, match=message) as error:
            load_image(tmp_path / name, 8)
        assert name in str(error.value)

    Image.fromarray(gradient(400, 400)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    refused("cut.jpg", "damaged")
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    refused("page.jpg", "not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    refused("empty.png", "not an image")
    refused("absent.jpg", "no such file")
    Image.new("1", (8001, 8000)).save(tmp_path / "large.png")
    refused("large.png", "8,001 x 8,000 pixels are too many")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    refused("whole.jpg", "decompression bomb")
