"""A check finds every way in which a cache can stop being true."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torchvision
from helpers.features import render_images, small_encoder
from PIL import Image

from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache
from vqa.features.encoders import preprocessing as images
from vqa.features.encoders.registry import ImageEncoder
from vqa.features.extraction.check import check_cache, describe_cache
from vqa.features.extraction.dataset import EncoderOptions, ExtractOptions, check_dataset, extract_dataset
from vqa.features.extraction.extract import extract


@pytest.fixture
def extracted(tmp_path: Path) -> tuple[ImageTable, Path]:
    images = render_images(tmp_path / "images", 6)
    extract(images, small_encoder(), tmp_path / "cache.h5", batch_size=4, command="make it")
    return images, tmp_path / "cache.h5"


def test_a_true_cache_has_no_problem(extracted: tuple[ImageTable, Path]) -> None:
    images, path = extracted
    before = path.read_bytes()
    rows = check_cache(path, images, small_encoder(), sample=4)
    assert len(rows) == 4
    assert len({row.image_id for row in rows}) == 4
    assert all(row.problem == "" and row.cosine > 0.9999 and row.largest_difference < 1e-2 for row in rows)
    assert len(check_cache(path, images, small_encoder(), sample=99)) == 6
    assert path.read_bytes() == before


def test_a_changed_image_and_a_damaged_row_are_named(extracted: tuple[ImageTable, Path]) -> None:
    images, path = extracted
    Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save(images.paths[1])
    images.paths[2].unlink()
    with h5py.File(path, "r+") as file:
        file["features"][4] = file["features"][3]
    rows = {row.image_id: row for row in check_cache(path, images, small_encoder(), sample=6)}
    assert {name for name, row in rows.items() if row.problem} == {"1", "2", "4"}
    assert "has changed" in rows["1"].problem
    assert str(images.paths[2]) in rows["2"].problem
    assert "differ (cosine" in rows["4"].problem


def test_another_encoder_is_named(extracted: tuple[ImageTable, Path]) -> None:
    images, path = extracted
    other = small_encoder()
    with torch.no_grad():
        next(other.parameters()).add_(0.1)
    other.weights_sha256 = "0" * 64
    with pytest.raises(InputError, match="weights_sha256 is"):
        check_cache(path, images, other)
    with pytest.raises(InputError, match="image_size is 32, expected 64"):
        check_cache(path, images, small_encoder(64))
    with pytest.raises(InputError, match="none of its finished images"):
        check_cache(path, ImageTable(("x",), images.paths[:1]), small_encoder())


@pytest.fixture
def on_disk(tmp_path: Path) -> tuple[Path, Path]:
    """A data set of one's own with a cache made from a weights file: (its folder, the cache)."""
    images = render_images(tmp_path, 5)
    lines = [f"{path.name},what is it?,cat" for path in images.paths]
    (tmp_path / "train.csv").write_text("\n".join(["image,question,answer", *lines]) + "\n")
    torch.manual_seed(4)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / "weights.pth")
    extract_dataset(
        tmp_path, "table", ["train"], tmp_path / "cache.h5",
        EncoderOptions("squeezenet1_1", "features.4", 32, str(tmp_path / "weights.pth")), ExtractOptions(),
    )  # fmt: skip
    return tmp_path, tmp_path / "cache.h5"


def test_check_finds_and_names_every_change(on_disk: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = on_disk

    def check() -> list[str]:
        return [row.problem for row in check_dataset(cache, folder, "table", ["train"], sample=5)]

    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            check()

    assert check() == [""] * 5
    weights = folder / "weights.pth"
    kept = weights.read_bytes()
    state = torch.load(weights, weights_only=True)
    state["features.3.squeeze.bias"][0] += 1e-4  # one number of one layer
    torch.save(state, weights)
    refused("weights_sha256 is .*expected")
    weights.write_bytes(kept)

    stated = FeatureCache(cache).attributes["preprocessing"]
    changes = {"mean": [0.5, 0.5, 0.5], "colours": "BGR", "interpolation": "bicubic, antialiased", "scale": "1/1"}
    for key, value in changes.items():
        with h5py.File(cache, "r+") as file:
            file.attrs["preprocessing"] = json.dumps(stated | {key: value})
        refused(f"{key} is .*{value[0]}")
    with h5py.File(cache, "r+") as file:
        file.attrs["preprocessing"] = json.dumps(stated)
    assert check() == [""] * 5

    # a library that scales otherwise states the same and gives other numbers
    monkeypatch.setitem(images.RESIZE_MODES, "squash", lambda image, side, _: image.resize((side, side), 0))
    assert all("the stored features differ" in problem for problem in check())
    monkeypatch.undo()

    image = folder / "3.png"
    Image.open(image).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(image)
    assert sum("has changed since" in problem for problem in check()) == 1


def test_check_of_int8_allows_for_its_steps(on_disk: tuple[Path, Path]) -> None:
    folder, _ = on_disk
    small = folder / "int8.h5"
    extract_dataset(
        folder, "table", ["train"], small,
        EncoderOptions("squeezenet1_1", "features.4", 32, str(folder / "weights.pth")), ExtractOptions(dtype="int8"),
    )  # fmt: skip
    rows = check_dataset(small, folder, "table", ["train"], sample=5)
    assert not any(row.problem for row in rows)
    with h5py.File(small, "r+") as file:
        file["features"][2] = file["features"][1]
        file["scale"][4] *= 2
    problems = [row.problem for row in check_dataset(small, folder, "table", ["train"], sample=5)]
    assert [bool(problem) for problem in problems] == [False, False, True, False, True]


class Spiked(ImageEncoder):
    """One number of each image is fifty times as large as all the others, as in large vision transformers."""

    def forward(self, image_B3SS: torch.Tensor) -> torch.Tensor:
        feature_BRC = torch.randn(1, self.regions, self.channels, generator=torch.Generator().manual_seed(0))
        feature_BRC[0, 0, 0] = 50
        return feature_BRC.expand(len(image_B3SS), -1, -1)


def test_check_of_int8_allows_for_one_very_large_number(tmp_path: Path) -> None:
    images = render_images(tmp_path / "images", 3)
    encoder = small_encoder()
    encoder.__class__ = Spiked
    extract(images, encoder, tmp_path / "cache.h5", dtype="int8")
    rows = check_cache(tmp_path / "cache.h5", images, encoder)
    assert [row.problem for row in rows] == ["", "", ""]
    assert min(row.cosine for row in rows) > 0.9999


def test_describe_says_what_a_cache_holds(extracted: tuple[ImageTable, Path]) -> None:
    _, path = extracted
    said = describe_cache(path)
    assert (said["images"], said["done"], said["encoder"], said["dtype"]) == (6, 6, "squeezenet1_1", "float16")
    assert said["bytes"] == path.stat().st_size
    assert said["command"] == "make it"
    assert said["preprocessing"]["resize"] == "squash"
