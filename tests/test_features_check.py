"""A check finds every way in which a cache can stop being true."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers_features import draw_pictures, small_encoder
from PIL import Image

from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.features.check import check_cache, describe_cache
from vqa.features.extract import extract


@pytest.fixture
def extracted(tmp_path: Path) -> tuple[ImageTable, Path]:
    images = draw_pictures(tmp_path / "pictures", 6)
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


def test_a_changed_picture_and_a_damaged_row_are_named(extracted: tuple[ImageTable, Path]) -> None:
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
    with pytest.raises(InputError, match="none of its finished pictures"):
        check_cache(path, ImageTable(("x",), images.paths[:1]), small_encoder())


def test_describe_says_what_a_cache_holds(extracted: tuple[ImageTable, Path]) -> None:
    _, path = extracted
    said = describe_cache(path)
    assert (said["images"], said["done"], said["encoder"], said["dtype"]) == (6, 6, "squeezenet1_1", "float16")
    assert said["bytes"] == path.stat().st_size
    assert said["command"] == "make it"
    assert said["preprocessing"]["resize"] == "squash"
