"""Other projects' feature files, written here as they are published, arrive in the cache number by number."""

import base64
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.training import SUBPROCESS, all_images, experiment, make_world
from numpy.typing import NDArray

from vqa.data.formats import image_table
from vqa.errors import InputError
from vqa.features.cache.imports import import_features
from vqa.features.cache.reader import FeatureCache, grid_of
from vqa.features.extraction.check import describe_cache
from vqa.features.extraction.dataset import check_dataset
from vqa.runs.answerer import Answerer
from vqa.training.train import train

CHANNELS = 5
WIDTH, HEIGHT = 640, 480


def image(seed: int, boxes: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features `[boxes, C]` and boxes `[boxes, 4]` in pixels."""
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 240, (boxes, 4)).astype(np.float32)
    corners[:, 2:] += corners[:, :2]
    return random.normal(size=(boxes, CHANNELS)).astype(np.float32) * 3, corners


def shares(box_R4: NDArray[np.float32]) -> NDArray[np.float64]:
    """The six numbers a box, one by one."""
    rows = [
        [x1 / WIDTH, y1 / HEIGHT, x2 / WIDTH, y2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT]
        for x1, y1, x2, y2 in box_R4.astype(np.float64)
    ]
    return np.array(rows)


def write_tsv(path: Path, names: dict[str, int], *, lxmert: bool = False, ending: str = "\r\n") -> None:
    """Names and numbers of boxes; the seed of an image is its number of boxes."""
    lines = []
    for name, count in names.items():
        features, boxes = image(count, count)
        packed = [base64.b64encode(array.tobytes()).decode() for array in (boxes, features)]
        other = base64.b64encode(np.zeros(count, dtype=np.int64).tobytes()).decode()
        cells = [name, WIDTH, HEIGHT, count, *packed]
        if lxmert:
            cells = [name, HEIGHT, WIDTH, other, other, other, other, count, *packed]
        lines.append("\t".join(map(str, cells)) + ending)
    path.write_bytes("".join(lines).encode())


def stored(cache: Path) -> dict[str, NDArray[np.float16]]:
    """What any HDF5 reader finds in the cache."""
    with h5py.File(cache) as file:
        assert file["done"][:].all()
        return dict(zip(file["image_id"].asstr()[:], file["features"][:], strict=True))


def expect(found: NDArray[np.float16], wanted_RC: NDArray[np.floating]) -> None:
    """The first rows are the image's, rounded once; the others are zero."""
    np.testing.assert_array_equal(found[: len(wanted_RC)], wanted_RC.astype(np.float16))
    assert not found[len(wanted_RC) :].any()


@pytest.mark.parametrize("lxmert", [False, True])
def test_bottom_up_attention_text(tmp_path: Path, lxmert: bool) -> None:
    write_tsv(tmp_path / "a.tsv", {"COCO_val2014_000000000042": 3, "9": 7}, lxmert=lxmert)
    write_tsv(tmp_path / "b.tsv", {"391895": 4, "9": 7}, lxmert=lxmert, ending="\n")
    files = [tmp_path / "a.tsv", tmp_path / "b.tsv"]
    report = import_features(
        "bottom-up-attention", files, tmp_path / "c.h5", geometry="channels", command="vqa import it"
    )
    assert (report.images, report.imported_now, report.repeated) == (3, 3, 1)
    found = stored(tmp_path / "c.h5")
    assert list(found) == ["42", "9", "391895"]
    for name, count in {"42": 3, "9": 7, "391895": 4}.items():
        features, boxes = image(count, count)
        assert found[name].shape == (7, CHANNELS + 6)
        expect(found[name][:, :CHANNELS], features)
        np.testing.assert_allclose(found[name][:count, CHANNELS:], shares(boxes), atol=1e-3)
        assert not found[name][count:].any()
    import_features("bottom-up-attention", files, tmp_path / "two.h5", boxes=2)
    expect(stored(tmp_path / "two.h5")["9"], image(7, 7)[0][:2])


@pytest.mark.parametrize("ids", ["json", 0, 2, 4])
def test_hengyuan_hu(tmp_path: Path, ids: Any) -> None:
    rows = {458752: 1, 9: 0, 25: 2}
    with h5py.File(tmp_path / "train36.hdf5", "w") as file:
        both = [image(row, 4) for row in range(3)]
        file["image_features"] = np.stack([features for features, _ in both])
        file["image_bb"] = np.stack([boxes for _, boxes in both])
        file["spatial_features"] = np.stack([shares(boxes) for _, boxes in both]).astype(np.float32)
    if ids == "json":
        (tmp_path / "train36_imgid2idx.json").write_text(json.dumps({str(k): v for k, v in rows.items()}))
    else:
        (tmp_path / "train36_imgid2idx.pkl").write_bytes(pickle.dumps(rows, protocol=ids))
    import_features("hengyuan-hu", [tmp_path / "train36.hdf5"], tmp_path / "c.h5", geometry="channels")
    found = stored(tmp_path / "c.h5")
    assert list(found) == ["9", "458752", "25"]
    for name, row in rows.items():
        features, boxes = image(row, 4)
        expect(found[str(name)][:, :CHANNELS], features)
        np.testing.assert_allclose(found[str(name)][:, CHANNELS:], shares(boxes), atol=1e-3)


def test_a_python_2_pickle_is_read_and_one_with_code_is_not(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "val.hdf5", "w") as file:  # ban-vqa: all boxes below each other
        file["image_features"] = np.concatenate([image(3, 3)[0], image(5, 5)[0]])
        file["pos_boxes"] = np.array([[0, 3], [3, 8]])
    ids = tmp_path / "val_imgid2idx.pkl"
    ids.write_bytes(b"(dp1\nI42\nI1\nsL7L\nI0\ns.")  # cPickle's protocol 0, one id a long
    import_features("hengyuan-hu", [tmp_path / "val.hdf5"], tmp_path / "c.h5")
    found = stored(tmp_path / "c.h5")
    expect(found["7"], image(3, 3)[0])
    expect(found["42"], image(5, 5)[0])
    touched = tmp_path / "touched"
    ids.write_bytes(b"cos\nsystem\n(S'touch " + str(touched).encode() + b"'\ntR.")
    with pytest.raises(InputError, match=r"val_imgid2idx\.pkl: not a plain .* asks for GLOBAL os system"):
        import_features("hengyuan-hu", [tmp_path / "val.hdf5"], tmp_path / "d.h5")
    assert not touched.exists()
    for content, message in [
        (b"]q.", "not a plain"),
        (pickle.dumps([1]), "asks for EMPTY_LIST"),
        (pickle.dumps(1), "no dict"),
        (pickle.dumps({1: 9}), "do not fit"),
    ]:
        ids.write_bytes(content)
        with pytest.raises(InputError, match=message):
            import_features("hengyuan-hu", [tmp_path / "val.hdf5"], tmp_path / "d.h5")
    ids.unlink()
    with pytest.raises(InputError, match="says which row is which image"):
        import_features("hengyuan-hu", [tmp_path / "val.hdf5"], tmp_path / "d.h5")


def test_openvqa(tmp_path: Path) -> None:
    for split, number, boxes in [("train2014", 9, 10), ("val2014", 42, 12)]:
        features, corners = image(number, boxes)
        (tmp_path / split).mkdir()
        np.savez_compressed(
            tmp_path / split / f"COCO_{split}_{number:012d}.jpg.npz",
            x=features.T, bbox=corners, num_bbox=boxes, image_h=HEIGHT, image_w=WIDTH,
        )  # fmt: skip
    folders = [tmp_path / "train2014", tmp_path / "val2014"]
    import_features("openvqa", folders, tmp_path / "c.h5", geometry="channels")
    found = stored(tmp_path / "c.h5")
    assert found["9"].shape == (12, CHANNELS + 6)
    expect(found["9"][:, :CHANNELS], image(9, 10)[0])
    expect(found["42"][:, :CHANNELS], image(42, 12)[0])
    np.testing.assert_allclose(found["42"][:, CHANNELS:], shares(image(42, 12)[1]), atol=1e-3)


def test_cyanogenoid(tmp_path: Path) -> None:
    map_ICHW = np.random.default_rng(0).normal(size=(3, CHANNELS, 2, 3)).astype(np.float16)
    with h5py.File(tmp_path / "resnet-14x14.h5", "w", libver="latest") as file:
        file["features"] = map_ICHW
        file["ids"] = np.array([581929, 9, 25], dtype=np.int32)
    import_features("cyanogenoid", [tmp_path / "resnet-14x14.h5"], tmp_path / "c.h5")
    found = stored(tmp_path / "c.h5")
    assert list(found) == ["581929", "9", "25"]
    for row, name in enumerate(found):
        for region in range(6):
            np.testing.assert_array_equal(found[name][region], map_ICHW[row, :, region // 3, region % 3])


def test_vqa_lstm_cnn(tmp_path: Path) -> None:
    tables = {name: np.random.default_rng(i).random((2, 8)).astype(np.float32) for i, name in enumerate("ab")}
    with h5py.File(tmp_path / "data_img.h5", "w") as file:
        file["images_train"], file["images_test"] = tables["a"], tables["b"]
    names: dict[str, Any] = {
        "ix_to_word": {"1": "what"},
        "unique_img_train": ["train2014/COCO_train2014_000000000009.jpg", "val2014/COCO_val2014_000000000042.jpg"],
        "unique_img_test": ["test2015/COCO_test2015_000000000001.jpg", "test2015/COCO_test2015_000000000016.jpg"],
    }
    (tmp_path / "data_prepro.json").write_text(json.dumps(names))
    import_features("vqa-lstm-cnn", [tmp_path / "data_img.h5"], tmp_path / "c.h5")
    found = stored(tmp_path / "c.h5")
    assert list(found) == ["9", "42", "1", "16"]
    for name, row in zip(found, np.concatenate([tables["a"], tables["b"]]), strict=True):
        expect(found[name], row[None])
    names["unique_img_test"].pop()
    (tmp_path / "other.json").write_text(json.dumps(names))
    with pytest.raises(InputError, match=r"images_test is \(2, 8\), and .*other.json names 1 images"):
        import_features("vqa-lstm-cnn", [tmp_path / "data_img.h5", tmp_path / "other.json"], tmp_path / "d.h5")


def test_an_imported_cache_trains_and_says_where_it_is_from(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    images = all_images(world / "data")
    write_tsv(tmp_path / "x.tsv", {name: 2 + place % 3 for place, name in enumerate(images.ids)})
    (world / "cache.h5").unlink()
    import_features("bottom-up-attention", [tmp_path / "x.tsv"], world / "cache.h5", command="vqa features import …")
    said = describe_cache(world / "cache.h5")
    assert said["encoder"] == "import:bottom-up-attention"
    assert "Visual Genome" in said["weights_origin"] and "x.tsv" in said["weights_origin"]
    assert said["weights_sha256"] == "unknown"
    assert said["command"] == "vqa features import …"
    assert set(FeatureCache(world / "cache.h5").image_digests) == {""}
    assert grid_of(said, 4) is None  # four boxes are no 2 x 2 grid
    run = train(experiment(world, tmp_path / "runs", training={"epochs": 1}))
    with pytest.raises(InputError, match="features were imported"):
        Answerer.load(run.path)
    with pytest.raises(InputError, match="features were imported"):
        check_dataset(world / "cache.h5", world / "data", "vqa_v2", ["val"])


def test_goes_on_after_a_kill_and_not_with_other_files(tmp_path: Path) -> None:
    write_tsv(tmp_path / "x.tsv", {str(number): 3 + number % 5 for number in range(3000)})
    arguments = [sys.executable, "-m", "vqa", "features", "import", "x.tsv", "--from", "bottom-up-attention"]
    environment = os.environ | SUBPROCESS
    killed = subprocess.Popen([*arguments, "--out", "k.h5"], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "k.h5").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    import_features("bottom-up-attention", [tmp_path / "x.tsv"], tmp_path / "k.h5")
    import_features("bottom-up-attention", [tmp_path / "x.tsv"], tmp_path / "whole.h5")
    with h5py.File(tmp_path / "k.h5") as one, h5py.File(tmp_path / "whole.h5") as two:
        assert one["done"][:].all()
        assert one["features"][:].tobytes() == two["features"][:].tobytes()
    again = import_features("bottom-up-attention", [tmp_path / "x.tsv"], tmp_path / "k.h5")
    assert again.imported_now == 0
    write_tsv(tmp_path / "x.tsv", {str(number): 7 - number % 5 for number in range(3000)})
    with pytest.raises(InputError, match="holds the features of other files"):
        import_features("bottom-up-attention", [tmp_path / "x.tsv"], tmp_path / "k.h5")


def test_int8_goes_on_too(tmp_path: Path) -> None:
    write_tsv(tmp_path / "x.tsv", {"1": 3, "2": 4})
    for expected in (2, 0):
        report = import_features("bottom-up-attention", [tmp_path / "x.tsv"], tmp_path / "c.h5", dtype="int8")
        assert report.imported_now == expected
    features = image(4, 4)[0]
    cache = FeatureCache(tmp_path / "c.h5")
    largest = np.abs(features).max()
    np.testing.assert_allclose(cache.read(np.array([1]))[0], features, atol=largest / 127 / 2 + 2e-3 * largest)


def test_int8_and_geometry_do_not_go_together(tmp_path: Path) -> None:
    write_tsv(tmp_path / "x.tsv", {"1": 3})
    with pytest.raises(InputError, match="one scale an image, in which the boxes' geometry"):
        import_features(
            "bottom-up-attention", [tmp_path / "x.tsv"], tmp_path / "c.h5", geometry="channels", dtype="int8"
        )


def test_wrong_files_are_named(tmp_path: Path) -> None:
    tsv, h5 = tmp_path / "x.tsv", tmp_path / "x.h5"

    def refused(layout: str, path: Path, message: str, **options: Any) -> None:
        with pytest.raises(InputError, match=message):
            import_features(layout, [path], tmp_path / f"{len(list(tmp_path.iterdir()))}.h5", **options)

    refused("bottom_up_attention", tsv, "unknown layout 'bottom_up_attention'.*did you mean 'bottom-up-attention'")
    refused("openvqa", tmp_path / "absent", "absent: no such file or folder")
    write_tsv(tsv, {"1": 3, "2": 3})
    whole = tsv.read_bytes()
    for length, message in [
        (len(whole) - 20, "line 2 .image 2.: damaged or truncated"),
        (len(whole) - 120, "line 2: . columns"),
    ]:
        tsv.write_bytes(whole[:length])
        refused("bottom-up-attention", tsv, message)
    tsv.write_bytes(whole.replace(b"\t3\t", b"\tx\t", 1))
    refused("bottom-up-attention", tsv, "line 1: its number of boxes is no whole number")
    tsv.write_bytes(b"")
    refused("bottom-up-attention", tsv, "empty")
    (tmp_path / "npz").mkdir()
    refused("openvqa", tmp_path / "npz", r"no \.npz file in this folder")
    np.savez(tmp_path / "npz" / "1.npz", y=np.zeros(3))
    refused("openvqa", tmp_path / "npz", r"1\.npz: no \.npz file with an array x")
    np.savez(tmp_path / "npz" / "1.npz", x=np.array([[1.0, np.inf]], dtype=np.float32))
    refused("openvqa", tmp_path / "npz", r"image 1 has inf among its features")
    np.savez(tmp_path / "npz" / "1.npz", x=np.ones((2, 3), dtype=np.float32))
    refused("openvqa", tmp_path / "npz", "image 1 has no boxes", geometry="channels")
    h5.write_bytes(b"no HDF5")
    refused("cyanogenoid", h5, r"x\.h5: no HDF5 file")
    with h5py.File(h5, "w") as file:
        file["features"], file["ids"] = np.zeros((2, 3, 1, 1)), np.zeros(1)
    refused("cyanogenoid", h5, "as many ids")
    refused("hengyuan-hu", h5, "holds features, ids, and no image_features")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pos_boxes": [[0, 3], [3, 18]]}, "pos_boxes of image 2 are 3 to 18, of 8 boxes"),
        ({"pos_boxes": [[3, 0], [3, 8]]}, "pos_boxes of image 1 are 3 to 0"),
        ({"pos_boxes": [[0, 3], [5, 5]]}, "pos_boxes of image 2 are 5 to 5"),
        ({"pos_boxes": [0, 3]}, r"pos_boxes is int64 \(2,\), expected whole numbers \[images, 2\]"),
        ({"pos_boxes": [[0.0, 3.0]]}, "pos_boxes is float64"),
        ({"pos_boxes": [[0, 3], [3, 8]], "spatial_features": np.ones((4, 6))}, r"spatial_features is \(4, 6\) beside"),
        ({"image_features": [[b"x"]], "pos_boxes": [[0, 1]]}, "image_features is no array of numbers"),
    ],
)
def test_boxes_that_are_not_in_the_file_are_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with h5py.File(tmp_path / "val.hdf5", "w") as file:
        for name, values in ({"image_features": np.ones((8, 5), dtype=np.float32)} | arrays).items():
            file[name] = values
    (tmp_path / "val_imgid2idx.json").write_text('{"1": 0, "2": 1}')
    with pytest.raises(InputError, match=rf"val\.hdf5: {message}"):
        import_features("hengyuan-hu", [tmp_path / "val.hdf5"], tmp_path / "c.h5")
    assert not (tmp_path / "c.h5").exists()


def test_files_without_images_ids_or_numbers_are_named(tmp_path: Path) -> None:
    h5, npz, tsv = tmp_path / "x.h5", tmp_path / "1.npz", tmp_path / "x.tsv"

    def refused(layout: str, path: Path, message: str) -> None:
        with pytest.raises(InputError, match=message):
            import_features(layout, [path], tmp_path / "c.h5")
        assert not (tmp_path / "c.h5").exists()

    for features, ids, message in [
        (np.ones((0, 3, 1, 1)), np.zeros(0, dtype=int), "holds no images"),
        (np.ones((2, 0, 1, 1)), [1, 2], "1 regions of 0 channels"),
        (np.ones((2, 3, 1, 1)), [b"a", b"b"], "ids is no array of numbers"),
        (np.ones((2, 3, 1, 1)), [[1], [2]], "ids are no whole numbers"),
    ]:
        with h5py.File(h5, "w") as file:
            file["features"], file["ids"] = features, ids
        refused("cyanogenoid", h5, message)
    with h5py.File(h5, "w") as file:
        file.create_group("features")
    refused("cyanogenoid", h5, "features is no array of numbers")
    np.savez(npz, x=np.array([["a"]]))
    refused("openvqa", npz, "x is <U1")
    np.savez(npz, x=np.ones((5, 0)))
    refused("openvqa", npz, "0 regions of 5 channels")
    write_tsv(tsv, {"1": 2, "": 3})
    refused("bottom-up-attention", tsv, "its image 2 has no id")
    write_tsv(tsv, {"1": 2})
    with pytest.raises(InputError, match="is a folder"):
        import_features("bottom-up-attention", [tsv], tmp_path)


def test_dots_in_names_tell_images_apart(tmp_path: Path) -> None:
    write_tsv(tmp_path / "x.tsv", {"scene.1.jpg": 3, "scene.2.jpg": 4, "COCO_val2014_000000000042.jpg": 5})
    report = import_features("bottom-up-attention", [tmp_path / "x.tsv"], tmp_path / "c.h5")
    assert report.repeated == 0
    assert list(stored(tmp_path / "c.h5")) == ["scene.1", "scene.2", "42"]


def test_images_are_named_as_a_data_set_does(tmp_path: Path) -> None:
    """A table's ids are its file names, with their endings and zeros."""
    write_tsv(tmp_path / "x.tsv", {"cat.jpg": 3, "007": 4, "elsewhere": 5})
    (tmp_path / "val.csv").write_text("image,question,answer\nimages/cat.jpg,what?,cat\n007.png,who?,bond\n")
    named = image_table(tmp_path, "table", ["val"]).ids
    import_features("bottom-up-attention", [tmp_path / "x.tsv"], tmp_path / "c.h5", names=named)
    assert list(stored(tmp_path / "c.h5")) == [*named, "elsewhere"] == ["images/cat.jpg", "007.png", "elsewhere"]
    for wrong, message in (
        (["a.jpg", "a.png"], "a.jpg and a.png"),
        (["dog.jpg"], "none of its images .first cat, 7"),
    ):
        with pytest.raises(InputError, match=message):
            import_features("bottom-up-attention", [tmp_path / "x.tsv"], tmp_path / "d.h5", names=wrong)
