"""The cache file: made whole, refused when it is another one, readable after any accident."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers.features import render_images

from vqa.data.dataset import ImageTable
from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache
from vqa.features.cache.writer import CacheWriter

ATTRIBUTES = {
    "encoder": "tiny",
    "layer": "top",
    "image_size": 32,
    "weights_sha256": "ab" * 32,
    "weights_origin": "made up",
    "preprocessing": {"resize": "squash", "mean": [0.5, 0.5, 0.5]},
    "torch": "2",
    "command": "vqa features extract --encoder tiny",
}
IDS = ("7", "train/8", "bild ä", "12")
IMAGES = ImageTable(IDS, tuple(Path(f"/images/{name}.jpg") for name in IDS))
FEATURE_IRC = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float16)


def fill(path: Path, rows: list[int], images: ImageTable = IMAGES) -> None:
    with CacheWriter(path, images, ATTRIBUTES, 3, 5) as writer:
        writer.write(np.array(rows), torch.from_numpy(FEATURE_IRC[rows]), [f"{row:064x}" for row in rows])


def test_another_program_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "cache.h5"
    fill(path, [2, 0])
    with h5py.File(path, "r") as file:
        assert file["image_id"].asstr()[:].tolist() == list(IDS)
        assert file["image_path"].asstr()[1] == "/images/train/8.jpg"
        assert file["done"][:].tolist() == [1, 0, 1, 0]
        assert file["features"].shape == (4, 3, 5)
        assert file["features"].chunks is None
        assert np.array_equal(file["features"][2], FEATURE_IRC[2])
        assert file["image_digest"][2].decode() == f"{2:064x}"
        assert file.attrs["encoder"] == "tiny"
        assert file.attrs["format_version"] == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["cache.h5"]


def test_rows_come_in_the_order_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    fill(path, [0, 1, 2, 3])
    cache = FeatureCache(path)
    rows = cache.rows(["12", "7", "bild ä", "7"])
    assert rows.dtype == np.int64
    assert rows.tolist() == [3, 0, 2, 0]
    assert torch.equal(cache.read(rows), torch.from_numpy(FEATURE_IRC[[3, 0, 2, 0]]))
    assert cache.read(np.array([], dtype=np.int64)).shape == (0, 3, 5)
    mapped_IRC = np.memmap(path, np.float16, "r", cache.offset, FEATURE_IRC.shape)
    assert np.array_equal(mapped_IRC, FEATURE_IRC)
    assert (cache.regions, cache.channels, len(cache)) == (3, 5, 4)
    assert cache.image_digests[3] == f"{3:064x}"


def test_reading_in_spans_gives_every_row_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqa.features.cache.reader.SPAN_BYTES", 20 * 2 * 2 * 2)
    path = tmp_path / "cache.h5"
    count = 300
    images = ImageTable(tuple(map(str, range(count))), tuple(Path(f"{i}.jpg") for i in range(count)))
    feature_IRC = np.arange(count * 4).reshape(count, 2, 2).astype(np.float16)
    with CacheWriter(path, images, ATTRIBUTES, 2, 2) as writer:
        writer.write(np.arange(count), torch.from_numpy(feature_IRC), ["0" * 64] * count)
    rows = np.random.default_rng(1).choice(count, 150)
    assert torch.equal(FeatureCache(path).read(rows), torch.from_numpy(feature_IRC[rows]))


def test_missing_and_unfinished_images_are_named(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    fill(path, [0, 1, 2])
    cache = FeatureCache(path)
    with pytest.raises(InputError, match=r"does not hold 2 of 3 images, first: 99, 98") as error:
        cache.rows(["7", "99", "98"])
    assert str(path) in str(error.value)
    with pytest.raises(InputError, match=r"1 of 2 images are not extracted yet, first: 12") as error:
        cache.rows(["7", "12"])
    assert "Complete it with: vqa features extract --encoder tiny" in str(error.value)
    assert cache.find(["12", "99", "7"]).tolist() == [-1, -1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "fc7"}, "layer is 'top', expected 'fc7'"),
        ({"weights_sha256": "cd" * 32}, "weights_sha256 is 'abab"),
        ({"preprocessing": {"resize": "letterbox", "mean": [0.5, 0.5, 0.5]}}, "resize is 'squash', expected 'letterb"),
        ({"dtype": "int8"}, "holds float16, expected int8"),
        ({"regions": 4}, "holds 3 x 5 an image, expected 4 x 5"),
        ({"images": ImageTable(IDS[:3], IMAGES.paths[:3])}, "holds 4 images, asked for 3"),
        (
            {"images": ImageTable((*IDS[:3], "new"), IMAGES.paths)},
            "holds 4 images, asked for 4, of which it lacks 1, first new",
        ),
    ],
)
def test_another_cache_is_refused_and_left_untouched(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "cache.h5"
    fill(path, [0])
    before = path.read_bytes()
    options: dict[str, object] = {"images": IMAGES, "regions": 3, "dtype": "float16", **ATTRIBUTES} | change
    images, regions, dtype = options.pop("images"), options.pop("regions"), options.pop("dtype")
    with pytest.raises(InputError, match=message) as error:
        CacheWriter(path, images, options, regions, 5, dtype)  # type: ignore[arg-type]
    assert "left as it is" in str(error.value)
    assert path.read_bytes() == before
    fill(path, [1])  # and it is not locked any more


def test_contradictions_name_each_difference(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    fill(path, [0])
    cache = FeatureCache(path)
    assert cache.contradictions({"encoder": "tiny", "preprocessing": {"resize": "squash"}}) == []
    found = cache.contradictions({"encoder": "vgg16", "preprocessing": {"resize": "letterbox"}, "image_size": 448})
    assert [sentence.split(": ")[1].split()[0] for sentence in found] == ["encoder", "resize", "image_size"]
    assert all(str(path) in sentence for sentence in found)


def test_files_that_are_no_cache(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"

    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message) as error:
            FeatureCache(path)
        assert str(path) in str(error.value)

    refused("no such feature cache")
    fill(path, [0, 1, 2, 3])
    whole = path.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 600, 10, 0):
        path.write_bytes(whole[:size])
        refused("truncated")
        with pytest.raises(InputError):
            fill(path, [0])
        assert path.read_bytes() == whole[:size]  # a damaged file is not written over
    path.write_text("not HDF5 at all")
    refused("not a feature cache")
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3)
    refused("not a feature cache")
    path.unlink()
    fill(path, [0])
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = 9
    refused("format_version 9 instead of 1")
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = 1
        del file["features"]
        file.create_dataset("features", data=FEATURE_IRC, chunks=(1, 3, 5))
    refused("/features is not contiguous; write it without chunks")


def test_a_second_writer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    with CacheWriter(path, IMAGES, ATTRIBUTES, 3, 5) as writer:
        with pytest.raises(InputError, match="another process is writing this cache"):
            CacheWriter(path, IMAGES, ATTRIBUTES, 3, 5)
        assert len(FeatureCache(path)) == 4  # reading is allowed meanwhile
        writer.write(np.array([0]), torch.from_numpy(FEATURE_IRC[:1]), ["0" * 64])
    fill(path, [1])
    assert FeatureCache(path).done_I.tolist() == [True, True, False, False]


def test_nothing_counts_before_it_is_committed(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    with CacheWriter(path, IMAGES, ATTRIBUTES, 3, 5) as writer:
        writer.write(np.array([0]), torch.from_numpy(FEATURE_IRC[:1]), ["0" * 64])
        assert not FeatureCache(path).done_I.any()
        writer.commit()
        assert FeatureCache(path).done_I.tolist() == [True, False, False, False]
        with pytest.raises(ValueError, match="do not fit"):
            writer.write(np.array([1]), torch.from_numpy(FEATURE_IRC[:1, :2]), ["0" * 64])


def test_flags_reach_the_file_only_after_everything_they_vouch_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut keeps what was brought to the disk, and any of the later bytes in any order."""
    path, happened = tmp_path / "cache.h5", list[str]()
    fill(path, [0])
    write, to_disk = os.pwrite, os.fsync

    def pwrite(descriptor: int, content: bytes, offset: int) -> int:
        happened.append("flag" if content == b"\x01" else "row")
        return write(descriptor, content, offset)

    def fsync(descriptor: int) -> None:
        happened.append("disk")
        to_disk(descriptor)

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "fsync", fsync)
    fill(path, [1, 3])
    assert happened == ["row"] * 4 + ["disk", "flag", "flag", "disk"]  # features and digests of two images


def test_int8_keeps_each_number_to_half_a_step(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    feature_IRC = torch.from_numpy(FEATURE_IRC).float() * torch.tensor([1.0, 100.0, 0.0, 1e-3]).view(4, 1, 1)
    with CacheWriter(path, IMAGES, ATTRIBUTES, 3, 5, "int8") as writer:
        writer.write(np.arange(4), feature_IRC, ["0" * 64] * 4)
    cache = FeatureCache(path)
    assert cache.dtype == torch.int8
    step_N11 = feature_IRC.abs().amax((1, 2), keepdim=True) / 127
    error_NRC = (cache.read(np.array([3, 2, 1, 0])).float().flip(0) - feature_IRC).abs()
    assert (error_NRC <= step_N11 * 0.51 + feature_IRC.abs() * 2**-10).all()  # half a step, and float16's rounding
    assert error_NRC[0].max() > 0 and error_NRC[2].max() == 0
    with h5py.File(path, "r") as file:  # what another program computes
        by_hand = file["features"][1] * file["scale"][1]
    assert np.allclose(by_hand, cache.read(np.array([1]))[0].numpy(), rtol=1e-3, atol=1e-5)
    with pytest.raises(InputError, match="unknown type of stored features 'int4'"):
        CacheWriter(path, IMAGES, ATTRIBUTES, 3, 5, "int4")


def test_a_full_disk_is_one_message_and_leaves_nothing(tmp_path: Path) -> None:
    images = render_images(tmp_path / "images", 2)
    with pytest.raises(InputError, match=r"needs .* [kMGTP]?B, the disk has .* [kMGTP]?B free"):
        CacheWriter(tmp_path / "out" / "cache.h5", images, ATTRIBUTES, 2**20, 2**26)  # 256 TB
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_as_file_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; give the name of a file in it"):
        CacheWriter(tmp_path, IMAGES, ATTRIBUTES, 3, 5)
    with pytest.raises(InputError, match="is a folder, not a feature cache"):
        FeatureCache(tmp_path)


def test_a_place_where_nothing_can_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "cache.h5", Path("/proc/nowhere/cache.h5"), tmp_path / f"{'x' * 300}.h5"):
        with pytest.raises(InputError, match="cannot be opened for writing: "):
            CacheWriter(path, IMAGES, ATTRIBUTES, 3, 5)


def test_a_name_that_is_no_utf8_is_one_message(tmp_path: Path) -> None:
    odd = os.fsdecode(b"/images/\xff.jpg")
    named = ImageTable(IDS, (Path(odd), *IMAGES.paths[1:]))
    for images, attributes in ((named, ATTRIBUTES), (IMAGES, ATTRIBUTES | {"command": f"vqa {odd}"})):
        with pytest.raises(InputError, match="which is no UTF-8; rename that file or folder"):
            CacheWriter(tmp_path / "cache.h5", images, attributes, 3, 5)
        assert list(tmp_path.iterdir()) == []


def test_the_same_images_in_another_order_are_another_cache(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    fill(path, [0])
    turned = ImageTable(IMAGES.ids[::-1], IMAGES.paths)
    with pytest.raises(InputError, match="holds 4 images, asked for 4 of the same, or in another order"):
        CacheWriter(path, turned, ATTRIBUTES, 3, 5)
