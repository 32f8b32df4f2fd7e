"""Every way in which paths miss images that are there is named, with the file that was meant."""

import os
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa.data.dataset import ImageTable, missing_images
from vqa.data.formats import read_dataset
from vqa.data.missing import CAUSES, Explanation, explain_missing, missing_sentence
from vqa.errors import InputError
from vqa.features.encoders.preprocessing import require_files

SCRIPTS = "abZéüßčłøñकயு猫がア한שעяωα9"  # letters only, each composed
NAMES = st.lists(st.sampled_from(SCRIPTS), min_size=2, max_size=6).map("".join)


def table(root: Path, wanted: list[str], *files: str) -> list[Path]:
    """A data set's folder with files, and the wanted paths as `table` makes them."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return [root / os.path.normpath(path) for path in wanted]


def explained(root: Path, wanted: list[str], *files: str) -> Explanation | None:
    paths = table(root, wanted, *files)
    return explain_missing(paths, [path for path in paths if not path.is_file()], root)


@pytest.mark.parametrize(
    ("written", "there", "causes"),
    [
        ("img\\0.png", "img/0.png", ["backslash"]),
        (".\\img\\0.png", "img/0.png", ["backslash"]),
        ("C:\\data\\img\\0.png", "img/0.png", ["backslash", "folder"]),
        ("https://example.org/a/0.png?size=2", "img/0.png", ["web"]),
        ("http://example.org/my%20cat.png", "img/my cat.png", ["web"]),
        ("s3://bucket/0.png", "img/0.png", ["web"]),
        ("img/my%20cat.png", "img/my cat.png", ["escapes"]),
        ("img/0.PNG", "img/0.png", ["capitals"]),
        ("Img/0.png", "img/0.png", ["capitals"]),
        ("img/0.jpeg", "img/0.jpg", ["ending"]),
        ("img/0.jpg", "img/0.webp", ["ending"]),
        ("img/0", "img/0.png", ["no ending"]),
        ("img/0.png", "img/0", ["ending"]),
        ("img/0.png ", "img/0.png", ["spaces"]),
        ("img/0 .png", "img/0.png", ["spaces"]),
        ("img/0.png", "img/0.png ", ["spaces"]),
        ("img/cafe\u0301.png", "img/caf\u00e9.png", ["unicode"]),
        ("im\u00e9/0.png", "ime\u0301/0.png", ["unicode"]),
        ("0.png", "img/0.png", ["folder"]),
        ("data/img/0.png", "img/0.png", ["folder"]),
        ("/home/someone/img/0.png", "img/0.png", ["folder"]),
        ("9", "img/000000000009.jpg", ["no ending", "number", "folder"]),
        ("img/COCO_train2014_000000000009.jpg", "img/000000000009.jpg", ["coco"]),
        ("train2014/COCO_train2014_000000000009.jpg", "photos/000000000009.jpg", ["coco"]),
        ("img\\CAT.JPG", "img/cat.png", ["backslash", "capitals", "ending"]),
    ],
)
def test_each_kind_is_named_with_the_file_that_is_there(
    written: str, there: str, causes: list[str], tmp_path: Path
) -> None:
    found = explained(tmp_path / "set", [written], there)
    assert found is not None and list(found.causes) == causes, found
    assert found.there == there and found.found_otherwise
    for cause in causes:
        assert all(part in str(found) for part in CAUSES[cause])


def test_a_folder_above_is_looked_into(tmp_path: Path) -> None:
    table(tmp_path, [], "img/0.png")
    found = explained(tmp_path / "tables", ["img/0.png"], "train.csv")
    assert found is not None and found.there == "../img/0.png" and found.causes == ("folder",)


@pytest.mark.parametrize("beside", ["other/listener-9", "9", "other/9.png", "img/000000000009.jpg", "file9"])
def test_what_only_has_the_same_number_beside_the_data_set_explains_nothing(beside: str, tmp_path: Path) -> None:
    """The folder above may hold anything, a machine's temporary files say."""
    root = tmp_path / "data"
    root.mkdir()
    table(tmp_path, [], beside)
    wanted = [root / "train2014/COCO_train2014_000000000009.jpg", root / "train2014/COCO_train2014_000000000025.jpg"]
    found = explain_missing(wanted, wanted, root)
    assert found is not None and (found.causes, found.there) == (("nothing",), "")


def test_a_folder_elsewhere_can_be_linked_by_the_command(tmp_path: Path) -> None:
    wanted = table(tmp_path, ["train/a b.png"], "deep/er/a b.png")
    found = explain_missing(wanted, wanted, tmp_path)
    assert found is not None and found.command.startswith("ln -s ")
    assert os.system(found.command) == 0 and wanted[0].is_file()


@pytest.mark.parametrize(
    ("wanted", "files", "said"),
    [
        (["img/0.png"], ["readme.txt", "images.zip"], "the images are still in an archive.*images.zip"),
        (["img/0.png"], ["readme.txt"], "no image file in the data set's folder"),
        (["https://example.org/0.png"], [], "nothing is loaded from the web"),
    ],
)
def test_what_is_not_there_at_all_is_said(wanted: list[str], files: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    paths = table(tmp_path / "set", wanted, *files)
    with pytest.raises(InputError, match=f"(?si)1 of 1 images are missing.*{said}"):
        require_files(ImageTable(("0",), paths), tmp_path / "set")


def test_files_that_are_other_images_explain_nothing(tmp_path: Path) -> None:
    """Splits whose images are numbered alike: the images of one are not those that the other lacks."""
    root = tmp_path / "set"
    wanted = table(root, ["train/0.png", "val/0.png", "val/1.png"], "train/0.png")
    assert explain_missing(wanted, wanted[1:], root) is None
    assert explained(root, ["img/12.png"], "img/scan_12_a.png", "img/99.png") is None  # a number in a name is no name
    assert missing_sentence(ImageTable(("0",), wanted[1:2]), wanted[1:2], root).count("\n") >= 1


def test_the_commonest_cause_is_said_with_its_share(tmp_path: Path) -> None:
    names = [f"img/{number}.PNG" for number in range(9)]
    files = [name.replace("PNG", "png") for name in names]
    found = explained(tmp_path / "set", [*names, "img/gone.jpg"], *files)
    assert found is not None and (found.explained, found.looked_at) == (9, 10) and "9 of 10 looked at" in str(found)


WAYS: dict[str, Callable[[str, str], str]] = {
    "backslash": lambda folder, name: f"{folder}\\{name}.jpg",
    "web": lambda folder, name: f"https://example.org/{folder}/{name}.jpg",
    "no ending": lambda folder, name: f"{folder}/{name}",
    "ending": lambda folder, name: f"{folder}/{name}.png",
    "spaces": lambda folder, name: f"{folder}/ {name}.jpg",
    "folder": lambda folder, name: f"{name}.jpg",
    "capitals": lambda folder, name: f"{folder}/{name}.JPG",
    "unicode": lambda folder, name: f"{folder}/{unicodedata.normalize('NFD', name)}.jpg",
}


@settings(max_examples=80, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=4, unique_by=lambda name: unicodedata.normalize("NFC", name).casefold()),
       st.sampled_from(sorted(WAYS)))  # fmt: skip
def test_names_in_any_script_are_found_by_what_they_mean(names: list[str], way: str) -> None:
    composed = [unicodedata.normalize("NFC", name) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        wanted = [WAYS[way]("img", name) for name in composed]
        files = [f"img/{name}.jpg" for name in composed]
        found = explained(root, wanted, *files)
        if way == "unicode" and wanted == files:
            assert found is None  # nothing to compose
            return
        assert found is not None and way in found.causes, (wanted, found)
        assert (found.there in files and found.explained == found.looked_at) or way == "unicode"


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=10))
def test_no_path_stops_the_explanation(written: str, other: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        root.mkdir()
        wanted = [root / (written.replace("\0", "") or "x"), root / "img" / (other.replace("\0", "") or "x")]
        (root / "a.jpg").touch()
        said = missing_sentence(ImageTable(("0", "1"), wanted), wanted, root)
        assert "2 of 2 images are missing" in said


def coco(root: Path, *files: str) -> list[str]:
    """A miniature of COCO-QA about images 9 and 25, its images as given; the paths that are read."""
    (root / "train").mkdir(parents=True)
    for name, lines in (("questions", "is it\nis it\n"), ("answers", "one\ntwo\n"), ("types", "0\n0\n")):
        (root / "train" / f"{name}.txt").write_text(lines)
    (root / "train" / "img_ids.txt").write_text("9\n25\n")
    table(root, [], *files)
    dataset = read_dataset("coco_qa", root, "train")
    gone = missing_images(dataset)
    return [str(path.relative_to(root)) for path in dataset.images.paths if path not in gone]


@pytest.mark.parametrize(
    "files",
    [
        ["train2017/000000000009.jpg", "train2017/000000000025.jpg"],
        ["train2017/000000000009.jpg", "val2017/000000000025.jpg"],
        ["coco/train2017/000000000009.jpg", "coco/val2017/000000000025.jpg"],
        ["images/000000000009.jpg", "images/000000000025.jpg"],
        ["train2014/COCO_train2014_000000000009.jpg", "train2014/COCO_train2014_000000000025.jpg"],
    ],
)
def test_coco_images_are_found_by_the_names_of_either_release(files: list[str], tmp_path: Path) -> None:
    assert coco(tmp_path, *files) == files


def test_official_names_go_before_those_of_2017(tmp_path: Path) -> None:
    official = [f"train2014/COCO_train2014_{number:012d}.jpg" for number in (9, 25)]
    assert coco(tmp_path, *official, "train2017/000000000009.jpg", "val2017/000000000025.jpg") == official
