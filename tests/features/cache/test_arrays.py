"""Features as plain arrays, and which image each row is: by the longest end of a path that only one image has."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vqa.errors import InputError
from vqa.features.cache.imports import import_features
from vqa.features.cache.imports.names import named
from vqa.features.cache.reader import FeatureCache

IDS = ["train2014/COCO_train2014_000000000009.jpg", "cat.png", "a.b.jpg"]
ROWS_NRC = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)


def stored(path: Path) -> dict[str, NDArray[np.float16]]:
    with h5py.File(path) as file:
        return dict(zip(file["image_id"].asstr()[:], file["features"][:], strict=True))


def npy(folder: Path, ids: list[str], rows: NDArray[Any]) -> Path:
    np.save(folder / "x.npy", rows)
    (folder / "x.txt").write_text("\n".join(ids) + "\n")
    return folder / "x.npy"


def npy_json(folder: Path, ids: list[str], rows: NDArray[Any]) -> Path:
    np.save(folder / "x.npy", rows)
    (folder / "x.json").write_text(json.dumps(ids))
    return folder / "x.npy"


def npy_folder(folder: Path, ids: list[str], rows: NDArray[Any]) -> Path:
    for name, row in zip(ids, rows, strict=True):
        path = folder / "of" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, row)
    return folder / "of"


def npz_table(folder: Path, ids: list[str], rows: NDArray[Any]) -> Path:
    np.savez_compressed(folder / "x.npz", ids=np.array(ids), features=rows, boxes=np.zeros((len(ids), 2, 4)))
    return folder / "x.npz"


def npz_images(folder: Path, ids: list[str], rows: NDArray[Any]) -> Path:
    np.savez(folder / "x.npz", **dict(zip(ids, rows, strict=True)))
    return folder / "x.npz"


def pt_table(folder: Path, ids: list[str], rows: NDArray[Any]) -> Path:
    torch.save({"image_ids": ids, "features": torch.from_numpy(rows)}, folder / "x.pt")
    return folder / "x.pt"


def pt_images(folder: Path, ids: list[str], rows: NDArray[Any]) -> Path:
    torch.save({name: torch.from_numpy(row) for name, row in zip(ids, rows, strict=True)}, folder / "x.pt")
    return folder / "x.pt"


def hdf5_table(folder: Path, ids: list[str], rows: NDArray[Any]) -> Path:
    with h5py.File(folder / "x.hdf5", "w") as file:
        file["image_id"] = ids
        file["feats"] = rows
    return folder / "x.hdf5"


def hdf5_images(folder: Path, ids: list[str], rows: NDArray[Any]) -> Path:
    with h5py.File(folder / "x.h5", "w") as file:
        for name, row in zip(ids, rows, strict=True):
            file[f"images/{name}"] = row
    return folder / "x.h5"


WRITERS: list[Callable[[Path, list[str], NDArray[Any]], Path]] = [
    npy, npy_json, npy_folder, npz_table, npz_images, pt_table, pt_images, hdf5_table, hdf5_images,
]  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("regions", [True, False])
def test_every_kind_of_file_arrives_number_by_number(write: Callable[..., Path], regions: bool, tmp_path: Path) -> None:
    rows = ROWS_NRC if regions else ROWS_NRC[:, 0]
    import_features("arrays", [write(tmp_path, IDS, rows)], tmp_path / "c.h5")
    found = stored(tmp_path / "c.h5")
    assert set(found) == {"9", "cat", "a.b"}
    for name, row in zip(("9", "cat", "a.b"), rows, strict=True):
        np.testing.assert_array_equal(found[name], np.atleast_2d(row).astype(np.float16))
    assert FeatureCache(tmp_path / "c.h5").attributes["encoder"] == "import:arrays"


@pytest.mark.parametrize("write", WRITERS)
def test_equal_names_in_different_folders_are_told_apart_by_the_data_set(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    """The images of SLAKE are all called source.jpg."""
    path = write(tmp_path, ["xmlab1/source", "xmlab2/source", "xmlab3/source"], ROWS_NRC)
    names = ["imgs/xmlab2/source.jpg", "imgs/xmlab1/source.jpg"]
    import_features("arrays", [path], tmp_path / "c.h5", names=names)
    found = stored(tmp_path / "c.h5")
    for name, row in zip(names, ROWS_NRC[[1, 0]], strict=True):
        np.testing.assert_array_equal(found[name], row.astype(np.float16))
    assert len(found) == 3 and len({*found} - {*names}) == 1
    with pytest.raises(InputError, match="different features of one image, source; name the data set"):
        import_features("arrays", [path], tmp_path / "d.h5")


def test_the_same_row_twice_is_taken_once_and_another_is_an_error(tmp_path: Path) -> None:
    path = npz_table(tmp_path, ["a.jpg", "b.jpg", "a.png"], ROWS_NRC[[0, 1, 0]])
    assert import_features("arrays", [path], tmp_path / "c.h5").repeated == 1
    path = npz_table(tmp_path, ["a.jpg", "b.jpg", "a.png"], ROWS_NRC)
    with pytest.raises(InputError, match=r"x\.npz \(a\.jpg\) and .*x\.npz \(a\.png\): different features of one im"):
        import_features("arrays", [path], tmp_path / "d.h5")


def test_folders_of_openvqa_are_told_apart_too(tmp_path: Path) -> None:
    for number in (1, 2):
        path = tmp_path / "feats" / f"xmlab{number}" / "source.npz"
        path.parent.mkdir(parents=True)
        np.savez(path, x=ROWS_NRC[number].T)
    with pytest.raises(InputError, match="different features of one image, source"):
        import_features("openvqa", [tmp_path / "feats"], tmp_path / "c.h5")
    names = ["imgs/xmlab1/source.jpg", "imgs/xmlab2/source.jpg"]
    import_features("openvqa", [tmp_path / "feats"], tmp_path / "c.h5", names=names)
    np.testing.assert_array_equal(stored(tmp_path / "c.h5")[names[1]], ROWS_NRC[2].astype(np.float16))


def test_images_with_different_numbers_of_regions_are_filled_up(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", one=ROWS_NRC[0], two=ROWS_NRC[1, :1])
    import_features("arrays", [tmp_path / "x.npz"], tmp_path / "c.h5")
    count_I = FeatureCache(tmp_path / "c.h5").count_I
    assert count_I is not None and count_I.tolist() == [2, 1]


def test_half_precision_of_brains_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)}, tmp_path / "x.pt")
    import_features("arrays", [tmp_path / "x.pt"], tmp_path / "c.h5")
    assert stored(tmp_path / "c.h5")["a"].tolist() == [[1.5, -2.0]]


class Anything:
    """What a file of tensors alone does not hold."""


def damaged(folder: Path) -> dict[str, tuple[Path, str]]:
    folder.mkdir(exist_ok=True)
    for name in ("a", "b", "c", "d", "e", "f"):
        (folder / name).mkdir()
    np.save(folder / "a" / "x.npy", ROWS_NRC)
    npy(folder / "b", IDS[:2], ROWS_NRC)
    np.savez(folder / "c" / "x.npz", ids=np.array(IDS), one=ROWS_NRC, two=ROWS_NRC)
    torch.save({"a": Anything()}, folder / "d" / "x.pt")
    np.savez(folder / "e" / "x.npz", one=ROWS_NRC[0], two=ROWS_NRC[0, :, :3])
    np.savez(folder / "f" / "x.npz", one=np.array(["text"]))
    (folder / "x.npy").write_bytes(b"no array")
    (folder / "x.bin").write_bytes(b"")
    (folder / "g").mkdir()
    with h5py.File(folder / "g" / "x.h5", "w") as file:
        file["one"] = ROWS_NRC
    return {
        "ids": (folder / "a" / "x.npy", r"put the ids of its rows beside it: .*x\.txt or .*x\.json"),
        "few": (folder / "b" / "x.npy", "2 ids beside features .3, 2, 4."),
        "which": (folder / "c" / "x.npz", "which array holds the features.*one, two"),
        "code": (folder / "d" / "x.pt", "no file of tensors alone"),
        "channels": (folder / "e" / "x.npz", "image two has 3 channels, one in"),
        "text": (folder / "f" / "x.npz", "one is <U4, no numbers"),
        "damaged": (folder / "x.npy", "no .npy file, or damaged"),
        "ending": (folder / "x.bin", "features are read from .npy"),
        "dimensions": (folder / "g" / "x.h5", r"image one is \[3, 2, 4\], expected \[channels\]"),
    }


@pytest.mark.parametrize("kind", ["ids", "few", "which", "code", "channels", "text", "damaged", "ending", "dimensions"])
def test_what_cannot_be_read_is_named(kind: str, tmp_path: Path) -> None:
    path, words = damaged(tmp_path / "in")[kind]
    with pytest.raises(InputError, match=words) as error:
        import_features("arrays", [path], tmp_path / "c.h5")
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("given_names", "names", "expected"),
    [
        (["feats/xmlab1/source.npy"], ["imgs/xmlab1/source.jpg", "imgs/xmlab2/source.jpg"], ["imgs/xmlab1/source.jpg"]),
        (["feats/xmlab3/source.npy"], ["imgs/xmlab1/source.jpg", "imgs/xmlab2/source.jpg"], [None]),
        (["x/1", "x/3"], ["d/1", "d/2"], ["d/1", None]),
        (["a/1", "b/1"], ["b/1.jpg"], [None, "b/1.jpg"]),  # a/1 is another image
        (["train2014/COCO_train2014_000000000009.npy"], ["9"], ["9"]),
        (["9.npy"], ["deep/folder/000009.jpg"], ["deep/folder/000009.jpg"]),
        ([r"imgs\one.npy"], ["imgs/one.png"], ["imgs/one.png"]),
    ],
)
def test_names_that_end_alike_are_one_image(given_names: list[str], names: list[str], expected: list[object]) -> None:
    assert named(given_names, names, Path("f"))[0] == expected


def test_a_name_that_two_images_end_in_is_refused() -> None:
    with pytest.raises(InputError, match=r"images a/1\.jpg and b/1\.jpg of the data set have one name in f"):
        named(["1"], ["a/1.jpg", "b/1.jpg"], Path("f"))


WORDS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)


@given(st.lists(WORDS, min_size=1, max_size=6, unique=True), st.lists(WORDS, min_size=1, max_size=6, unique=True))
def test_a_row_gets_an_image_only_if_their_paths_end_alike(given_names: list[str], names: list[str]) -> None:
    """Against the definition by brute force: no row shares a longer end with another image, and each image has one."""

    def shared(one: str, other: str) -> int:
        pairs = zip(reversed(one.split("/")), reversed(other.split("/")), strict=False)
        return next((place for place, (a, b) in enumerate(pairs) if a != b), min(one.count("/"), other.count("/")) + 1)

    try:
        found, count = named(given_names, names, Path("f"))
    except InputError:
        ends = [sum(name.endswith(f"/{one}") for name in names) for one in given_names if one not in names]
        assert max(ends) > 1  # and it is itself none of them
        return
    for one, name in zip(given_names, found, strict=True):
        if one in names:
            assert name == one
        if name is not None:
            assert one == name or all(shared(one, other) < shared(one, name) for other in names if other != name)
            assert all(shared(another, name) <= shared(one, name) for another in given_names)
    assert count == len({name for name in found if name is not None})
