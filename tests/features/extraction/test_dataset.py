"""Features of a whole data set by the commands: extracted, described, checked against their images."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import vqa.cli
from vqa.data.formats import image_table
from vqa.data.synthetic import generate_dataset
from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache
from vqa.features.encoders.image_encoder import ImageEncoder
from vqa.features.encoders.registry import build_image_encoder
from vqa.features.extraction.dataset import (
    EncoderOptions,
    ExtractOptions,
    check_dataset,
    decoding_threads,
    extract_dataset,
    imagenet_weights_at_hand,
)
from vqa.features.extraction.extract import ExtractReport, images_at_once
from vqa.features.extraction.room import image_bytes

PIXELS = 64


@pytest.fixture
def world(tmp_path: Path) -> Path:
    generate_dataset(tmp_path / "data", 40, 0, "real", PIXELS)
    return tmp_path


def extracted(world: Path) -> Path:
    cache = world / "cache.h5"
    encoder = EncoderOptions("squeezenet1_1", "features.3", PIXELS, "random")
    extract_dataset(world / "data", "vqa_v2", ["train", "val"], cache, encoder, ExtractOptions())
    return cache


@pytest.fixture
def status(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["vqa", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            vqa.cli.main()
        return int(ended.value.code or 0)

    return call


def test_a_fresh_cache_is_confirmed_and_described(
    world: Path, status: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    cache = extracted(world)
    data = ["--data", world / "data", "--format", "vqa_v2"]
    assert status("features", "check", cache, *data, "--split", "train", "--split", "val", "--sample", 5) == 0
    assert "5 of 5 images give the stored features again" in capsys.readouterr().out
    assert status("features", "info", cache) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["encoder"] == "squeezenet1_1" and told["weights"] == "random"
    assert told["done"] == told["images"] == len(image_table(world / "data", "vqa_v2", ["train", "val"]).ids)


def test_a_cropped_cache_is_checked_and_completed_as_it_was_made(
    world: Path, status: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    cache = world / "cache.h5"
    data = ["--data", world / "data", "--format", "vqa_v2", "--split", "train"]
    made = ["--encoder", "squeezenet1_1", "--layer", "features.3", "--weights", "random", "--out", cache]
    cropped = ["--resize", "centre-crop", "--image-size", "48", "--resize-to", "64"]
    assert status("features", "extract", *data, *made, *cropped) == 0
    assert status("features", "check", cache, *data, "--sample", 5) == 0
    assert "5 of 5 images give the stored features again" in capsys.readouterr().out
    assert status("features", "extract", *data, *made, *cropped[:-1], "56") == 2
    assert "resize_to is 64, expected 56" in capsys.readouterr().err
    assert status("features", "extract", *data, *made, *cropped[:-2]) == 2
    assert "resize_to is 64, expected None" in capsys.readouterr().err
    with h5py.File(cache, "r+") as file:
        stated = json.loads(file.attrs["preprocessing"])
        assert (stated["resize"], stated["resize_to"], stated["size"]) == ("centre-crop", 64, [48, 48])
        file.attrs["preprocessing"] = json.dumps(stated | {"resize_to": "64"})
    assert status("features", "info", cache) == 2
    assert "resize_to is 64: Expected `int`" in capsys.readouterr().err


def test_an_image_that_was_changed_is_found(
    world: Path, status: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    cache = extracted(world)
    images = image_table(world / "data", "vqa_v2", ["train"])
    Image.new("RGB", (PIXELS, PIXELS), "red").save(images.paths[0])
    arguments = ["--data", world / "data", "--format", "vqa_v2", "--split", "train", "--sample", 100]
    assert status("features", "check", cache, *arguments) == 1
    said = capsys.readouterr().out
    assert f"{images.ids[0]} ({images.paths[0]}): the image's file has changed" in said
    rows = check_dataset(cache, world / "data", "vqa_v2", ["train"], sample=100)
    assert [row.image_id for row in rows if row.problem] == [images.ids[0]]


def test_weights_that_are_not_there_are_named(world: Path, status: Callable[..., int]) -> None:
    cache = extracted(world)
    arguments = ["--data", world / "data", "--format", "vqa_v2", "--split", "train"]
    assert status("features", "check", cache, *arguments, "--weights", world / "none.pth") == 2
    assert status("features", "info", world / "none.h5") == 2


def test_an_image_in_two_splits_is_one_row(world: Path) -> None:
    twice = image_table(world / "data", "vqa_v2", ["train", "val", "train"])
    assert len(twice.ids) == len(set(twice.ids))
    assert FeatureCache(extracted(world)).image_ids == twice.ids


def test_every_option_reaches_the_cache_and_a_check_computes_as_it_was_made(
    world: Path, status: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", world / "data", "--format", "vqa_v2", "--split", "train"]
    network = ["--encoder", "squeezenet1_1", "--layer", "features.12", "--image-size", 64, "--weights", "random"]
    options = ["--resize", "letterbox", "--scaled-decoding", "--dtype", "int8", "--precision", "bfloat16"]
    out = world / "options.h5"
    assert status("features", "extract", *data, *network, *options, "--no-compile", "--out", out) == 0
    assert "the bound is" in capsys.readouterr().out
    cache = FeatureCache(out)
    assert cache.attributes["arithmetic"] == "bfloat16 channels_last" and cache.dtype == torch.int8
    assert cache.attributes["preprocessing"]["resize"] == "letterbox"
    assert cache.attributes["preprocessing"]["scaled_decoding"] is True
    assert status("features", "check", out, *data, "--sample", 6) == 0
    plain = world / "float32.h5"
    assert status("features", "extract", *data, *network, *options[:-2], "--out", plain) == 0
    rows = np.arange(len(cache))
    assert not torch.equal(FeatureCache(plain).read(rows), cache.read(rows))
    assert status("features", "extract", *data, *network, *options[:-1], "float32", "--out", out) == 2
    capsys.readouterr()
    assert status("features", "extract", *data, *network, "--resize", "squash", "--dtype", "int8", "--out", plain) == 2
    assert "resize is 'letterbox', expected 'squash'" in capsys.readouterr().err


def test_imagenet_weights_are_at_hand_only_for_networks_that_have_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    names = ("vgg16", "vgg16_caffe", "hf:openai/clip-vit-base-patch32", "nonsense")
    assert [imagenet_weights_at_hand(name) for name in names] == [False] * 4
    file = tmp_path / "checkpoints" / Path(torchvision.models.VGG16_Weights.DEFAULT.url).name
    file.parent.mkdir()
    file.touch()
    assert [imagenet_weights_at_hand(name) for name in names] == [True, False, False, False]


def test_a_full_gpu_is_one_message(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(ImageEncoder, "encode", full)
    with pytest.raises(InputError, match="no memory for 32 images of 64 px at once; take a smaller --batch-size"):
        extracted(world)


def test_as_many_threads_decode_as_a_process_has_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, processes, threads in ((2, 1, 2), (1, 1, 2), (12, 1, 12), (12, 2, 6), (12, 12, 2), (128, 1, 16)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _process, cores=cores: set(range(cores)), raising=False)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert decoding_threads() == threads, (cores, processes)


def test_a_batch_has_no_more_pixels_of_larger_images(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [images_at_once(side) for side in (16, 224, 256, 448, 800, 1400)] == [32, 32, 24, 8, 2, 1]
    given = []

    def noted(*arguments: object, batch_size: int, **options: object) -> ExtractReport:
        given.append(batch_size)
        return ExtractReport.nothing()

    monkeypatch.setattr("vqa.features.extraction.dataset.extract", noted)
    for asked in (None, 5):
        encoder = EncoderOptions("squeezenet1_1", "features.3", 448, "random")
        options = ExtractOptions(batch_size=asked)
        extract_dataset(world / "data", "vqa_v2", ["train"], world / "x.h5", encoder, options)
    assert given == [8, 5]


@pytest.mark.parametrize("size", [10**5, 10**6])
def test_images_that_are_too_large_are_refused_before_one_is_encoded(world: Path, size: int) -> None:
    encoder = EncoderOptions("squeezenet1_1", "features.3", size, "random")
    said = rf"cpu: encoding 1 image of {size} px at once needs .* of main memory are free; take a smaller --image-size"
    with pytest.raises(InputError, match=said):
        extract_dataset(world / "data", "vqa_v2", ["train"], world / "large.h5", encoder, ExtractOptions(batch_size=1))
    with pytest.raises(InputError, match=r"take a smaller --batch-size"):
        extract_dataset(world / "data", "vqa_v2", ["train"], world / "large.h5", encoder, ExtractOptions(batch_size=9))
    assert not (world / "large.h5").exists()


def test_an_image_takes_its_pixels_and_its_largest_layer() -> None:
    encoder = build_image_encoder("squeezenet1_1", layer="features.3", image_size=PIXELS, weights="random")
    pixels, first = 3 * PIXELS**2, 64 * 31**2  # the first layer's map, which the next one replaces by its like
    assert image_bytes(encoder) == pixels + 2 * 2 * first


def test_a_batch_larger_than_the_data_is_the_data(world: Path) -> None:
    encoder = EncoderOptions("squeezenet1_1", "features.3", PIXELS, "random")
    options = ExtractOptions(batch_size=10**12)
    assert not extract_dataset(world / "data", "vqa_v2", ["val"], world / "c.h5", encoder, options).unreadable
