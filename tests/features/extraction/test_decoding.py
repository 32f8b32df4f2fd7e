"""One way of decoding for a whole cache: chosen once, stated with its numbers, used again by whoever comes later."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers.features import render_images, small_encoder
from PIL import Image

from vqa.data.dataset import ImageTable
from vqa.data.formats import image_table
from vqa.data.images import ON_WHITE, Decoding, HighestValues, read_rgb
from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache
from vqa.features.encoders.preprocessing import Preparation, as_file, load_image
from vqa.features.extraction.check import check_cache
from vqa.features.extraction.dataset import (
    DecodingOptions,
    EncoderOptions,
    ExtractOptions,
    encoder_of,
    extract_dataset,
)
from vqa.features.extraction.extract import ExtractReport, extract
from vqa.features.tables.feature_table import FeatureTable
from vqa.features.tables.pixel_table import PixelTable
from vqa.progress import console

SIDE = 32
ENCODER = EncoderOptions("squeezenet1_1", "features.4", SIDE, "random")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A table of 16-bit images up to 3,000, drawings on a transparent ground, a plain image and a blank one."""
    folder = tmp_path / "data"
    folder.mkdir()
    random = np.random.default_rng(0)
    deep = random.integers(0, 2000, (3, 20, 20), dtype=np.uint16)
    deep[1, 3, 4] = 3000
    for number, value_HW in enumerate(deep):
        Image.fromarray(value_HW).save(folder / f"deep{number}.png")
    clear = np.zeros((20, 20, 4), dtype=np.uint8)
    clear[4:12, 4:12, 3] = 255
    Image.fromarray(clear).save(folder / "drawing.png")
    Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(folder / "plain.png")
    Image.new("RGB", (20, 20), "red").save(folder / "blank.png")
    names = sorted(path.name for path in folder.iterdir())
    rows = "".join(f"{name},what?,this\n" for name in names)
    (folder / "train.csv").write_text(f"image,question,answer\n{rows}")
    (folder / "val.csv").write_text("image,question,answer\nplain.png,what?,this\ndeep0.png,what?,this\n")
    return folder


def run(data: Path, out: str, split: str = "train", **asked: str) -> tuple[Path, ExtractReport]:
    options = ExtractOptions(decoding=DecodingOptions(**asked))
    path = data.parent / out
    return path, extract_dataset(data, "table", [split], path, ENCODER, options)


def stated(path: Path) -> Decoding:
    return Decoding.stated_in(FeatureCache(path).attributes["preprocessing"])


def test_the_range_is_found_stated_and_used_again(data: Path) -> None:
    with console.capture() as captured:
        path, report = run(data, "auto.h5")
    assert stated(path) == Decoding("white", HighestValues(uint16=3000.0))
    assert "uint16: 0 to 3000" in captured.get()
    assert [one.name for one in report.one_colour] == ["blank.png"]
    assert "1 images come out (almost) one colour: blank.png" in captured.get()
    encoder = encoder_of(FeatureCache(path).attributes, None, path)
    assert encoder.preparation.decoding == stated(path)
    images = image_table(data, "table", ["train"])
    assert not any(row.problem for row in check_cache(path, images, encoder, sample=6))
    row = images.ids.index(next(name for name in images.ids if "drawing" in name))
    pixels = encoder.load(images.paths[row]).pixels_3SS
    assert torch.allclose(encoder(pixels[None])[0].half(), FeatureCache(path).read(np.array([row]))[0], atol=1e-2)
    assert pixels.float().std() > 50


def test_a_later_extraction_takes_the_numbers_of_the_cache_not_of_its_images(data: Path) -> None:
    path, _ = run(data, "auto.h5")
    with h5py.File(path, "a") as file:
        file["done"][1] = 0  # to be completed
    Image.fromarray(np.full((20, 20), 50_000, dtype=np.uint16)).save(data / "unseen.png")
    _, report = run(data, "auto.h5")
    assert report.extracted_now == 1 and stated(path).highest == HighestValues(uint16=3000.0)
    val, _ = run(data, "val.h5", "val", range=str(path))
    assert stated(val) == stated(path)
    alone, _ = run(data, "alone.h5", "val")
    assert stated(alone).highest != stated(path).highest
    ids = image_table(data, "table", ["train", "val"]).ids
    FeatureTable.load([FeatureCache(path), FeatureCache(val)], ids, torch.device("cpu"))
    with pytest.raises(InputError, match=r"uint16 is .* expected 3000"):
        FeatureTable.load([FeatureCache(path), FeatureCache(alone)], ids, torch.device("cpu"))


def test_what_is_asked_for_is_done_or_refused(data: Path) -> None:
    path, _ = run(data, "black.h5", background="#000000", range="full")
    assert stated(path) == Decoding("black")
    run(data, "black.h5")  # goes on as it was begun
    run(data, "black.h5", background="black", range="full")
    with pytest.raises(InputError, match="background is 'black', expected 'white'"):
        run(data, "black.h5", background="white")
    with pytest.raises(InputError, match="background is 'black', expected None"):
        run(data, "black.h5", background="none")
    with pytest.raises(InputError, match="choose white, black or a colour"):
        run(data, "other.h5", background="pink")
    with pytest.raises(InputError, match="no such feature cache"):
        run(data, "other.h5", range="largest")
    dropped, _ = run(data, "dropped.h5", background="none")
    assert stated(dropped).background is None
    assert not (data.parent / "other.h5").exists()


def test_a_cache_that_states_neither_is_completed_and_checked_as_before(data: Path) -> None:
    images = image_table(data, "table", ["train"])
    before = small_encoder()
    before.decode_as(Decoding(None, None))
    path = data.parent / "old.h5"
    extract(images, before, path)
    assert not {"background", "range"} & set(FeatureCache(path).attributes["preprocessing"])
    content = path.read_bytes()
    with h5py.File(path, "a") as file:
        file["done"][2] = 0
    _, report = run(data, "old.h5")
    assert report.extracted_now == 1 and path.read_bytes() == content
    encoder = encoder_of(FeatureCache(path).attributes, None, path)
    assert not any(row.problem for row in check_cache(path, images, encoder))
    new, _ = run(data, "new.h5", "val")
    ids = image_table(data, "table", ["val"]).ids
    for caches in ([path, new], [new, path]):
        with pytest.raises(InputError, match=rf"background is[^$]*; extract it with --range \S*{caches[0].name}"):
            FeatureTable.load([FeatureCache(one) for one in caches], ids, torch.device("cpu"))
    joining, _ = run(data, "joining.h5", "val", range=str(path))
    assert stated(joining) == stated(path) == Decoding(None, None)
    FeatureTable.load([FeatureCache(joining), FeatureCache(path)], ids, torch.device("cpu"))
    assert stated(run(data, "asked.h5", "val", range=str(path), background="black")[0]) == Decoding("black", None)


def test_the_decoding_of_another_cache_is_taken_whole(data: Path) -> None:
    path, _ = run(data, "black.h5", background="black")
    taken, _ = run(data, "taken.h5", "val", range=str(path))
    assert stated(taken) == stated(path) == Decoding("black", HighestValues(uint16=3000.0))
    assert stated(run(data, "white.h5", "val", range=str(path), background="white")[0]) == replace(
        stated(path), background="white"
    )


def test_a_tuned_encoder_finds_the_range_on_its_own_images_unless_it_is_known(data: Path) -> None:
    images = image_table(data, "table", ["train"])
    encoder = small_encoder()
    encoder.range_from_images = True
    table = PixelTable(images, encoder, torch.device("cpu"))
    assert encoder.preprocessing["range"]["uint16"] == 3000.0 and not encoder.range_from_images
    deep = next(row for row, path in enumerate(images.paths) if path.name == "deep1.png")
    expected = load_image(images.paths[deep], Preparation(SIDE, decoding=ON_WHITE.of_images(images.paths))).pixels_3SS
    assert torch.equal(table.gather(torch.tensor([deep])).pixels_U3SS[0], expected) and expected.max() > 150
    known = small_encoder()
    known.decode_as(ON_WHITE)
    PixelTable(images, known, torch.device("cpu"))
    assert known.preparation.decoding == ON_WHITE


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "HSV", "I", "I;16", "F", "PA", "La"])
def test_an_image_in_memory_is_decoded_as_its_file_is(mode: str) -> None:
    """`run.answer` takes Pillow images, whose transparency and large numbers must reach the run's own decoding."""
    value_HW = np.random.default_rng(0).integers(0, 200, (9, 9))
    kinds = {"I": np.int32, "I;16": np.uint16, "F": np.float32}
    if mode in kinds:
        image = Image.fromarray(value_HW.astype(kinds[mode]))
        decoding = Decoding(highest=HighestValues(200.0, 200.0, 200.0))
        expected = np.rint(value_HW / 200 * 255)[..., None].repeat(3, 2)
        np.testing.assert_array_equal(np.asarray(read_rgb(as_file(image), decoding)), expected)
        return
    image = Image.fromarray(value_HW.astype(np.uint8))
    if mode in ("LA", "RGBA", "PA", "La"):
        image = image.convert("RGBA")
        image.putalpha(Image.fromarray((value_HW.T > 90).astype(np.uint8) * 255))
    image = image.convert("LA").convert("La") if mode == "La" else image.convert(mode)
    whole = (image.convert("LA") if mode == "La" else image).convert("RGBA")
    expected_image = Image.new("RGBA", image.size, "white")
    expected_image.alpha_composite(whole)
    np.testing.assert_array_equal(np.asarray(read_rgb(as_file(image))), np.asarray(expected_image.convert("RGB")))


def test_sixteen_bits_that_pillow_holds_in_32_come_out_as_by_their_path(tmp_path: Path) -> None:
    value_HW = np.arange(48 * 48).reshape(48, 48) * 28
    path = tmp_path / "deep.pgm"
    path.write_bytes(b"P5\n48 48\n65535\n" + value_HW.astype(">u2").tobytes())
    by_path = np.asarray(read_rgb(path))
    assert by_path.max() > 240
    with Image.open(path) as image:
        assert image.mode == "I"
        for held in (image, image.copy(), image.crop((0, 0, 48, 48))):  # those made of it have no format
            np.testing.assert_array_equal(np.asarray(read_rgb(as_file(held))), by_path)
    wide = Image.fromarray((value_HW * 30_000).astype(np.int32))
    wide.save(tmp_path / "wide.tif")
    np.testing.assert_array_equal(np.asarray(read_rgb(as_file(wide))), np.asarray(read_rgb(tmp_path / "wide.tif")))
    Image.fromarray(value_HW.astype(np.int32)).save(tmp_path / "dark.tif")
    with Image.open(tmp_path / "dark.tif") as dark:  # whose file says that it has 32 bits
        np.testing.assert_array_equal(np.asarray(read_rgb(as_file(dark))), np.asarray(read_rgb(tmp_path / "dark.tif")))


@pytest.mark.parametrize("top", [2e38, float(np.finfo(np.float32).max)])
def test_every_number_that_an_image_holds_can_be_its_white(data: Path, top: float) -> None:
    value_HW = np.zeros((20, 20), dtype=np.float32)
    value_HW[3, 4] = top
    Image.fromarray(value_HW).save(data / "huge.tiff")
    (data / "train.csv").write_text("image,question,answer\nhuge.tiff,what?,this\n")
    path, report = run(data, "huge.h5")
    highest = stated(path).highest
    assert highest is not None and highest.float32 == np.float32(top) and report.extracted_now == 1


def test_letterbox_bars_hide_no_blank_image(tmp_path: Path) -> None:
    Image.new("RGB", (40, 10), "black").save(tmp_path / "blank.png")
    for resize in ("squash", "centre-crop", "letterbox"):
        assert load_image(tmp_path / "blank.png", Preparation(SIDE, resize)).one_colour
    table = render_images(tmp_path / "more", 1)
    assert not load_image(table.paths[0], replace(Preparation(SIDE), resize="letterbox")).one_colour
    assert isinstance(table, ImageTable)
