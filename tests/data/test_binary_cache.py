"""The cache of columns: the same data the second time, never stale, never trusted when damaged, off when asked."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.formats import annotations, questions, write, write_official

import vqa.data.binary_cache as binary_cache
from vqa.data.binary_cache import cache_folder, cached_columns
from vqa.data.dataset import QADataset, Strings
from vqa.data.formats import read_dataset
from vqa.data.formats.official import read_official
from vqa.errors import InputError

IDS = [52, 10, 11, 40, 31]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own that keeps small files too."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("VQA_CACHE", str(folder))
    monkeypatch.setattr(binary_cache, "SMALLEST", 0)
    return folder


def entries(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.npz"))


def same(one: QADataset, other: QADataset) -> bool:
    for name, value in vars(one).items():
        again = getattr(other, name)
        if isinstance(value, np.ndarray):
            assert value.dtype == again.dtype and (value == again).all(), name
        elif isinstance(value, Strings):
            assert value.distinct == again.distinct and (value.codes == again.codes).all(), name
            assert value.codes.dtype == again.codes.dtype
        else:
            assert value == again, name
    return True


def test_the_second_reading_gives_the_same_data_set_without_decoding(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    write_official(root, IDS, "val2014")
    first = read_dataset("vqa_v1", root, "val")
    assert len(entries(cache)) == 3
    monkeypatch.setattr("vqa.data.formats.official.decode_file", None)
    assert same(first, read_dataset("vqa_v1", root, "val"))
    assert same(first, read_dataset("vqa_v1", root, "val2014"))


def test_unusual_text_and_absent_columns_survive(tmp_path: Path, cache: Path) -> None:
    texts = ["", "é\n\0", "😀" * 3, "a,b", "\ufeff", "\r\n"]
    file = questions(IDS, "mscoco", "test2015")
    for row, text in zip(file["questions"], texts, strict=False):
        row["question"] = text
    path = write(tmp_path / "q.json", file)
    for dataset in (read_official(path), read_official(path)):
        assert [dataset.question.at(row) for row in range(5)] == texts[:5]
        assert dataset.choices is None and dataset.split == "test2015"


def test_a_changed_file_of_the_same_size_and_time_is_read_anew(tmp_path: Path, cache: Path) -> None:
    asked = write(tmp_path / "q.json", questions(IDS, "mscoco", "val2014"))
    answered = write(tmp_path / "a.json", annotations(IDS, "mscoco", "val2014"))
    before, status = read_official(asked, answered), answered.stat()
    answered.write_text(answered.read_text().replace("answer 2", "answer X"))
    os.utime(answered, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = read_official(asked, answered)
    assert before.majority is not None and after.majority is not None
    assert [before.majority.at(0), after.majority.at(0)] == ["answer 2", "answer X"]


def test_a_moved_file_finds_its_entry_and_messages_name_the_new_place(tmp_path: Path, cache: Path) -> None:
    asked = write(tmp_path / "q.json", questions(IDS, "mscoco", "val2014"))
    answered = write(tmp_path / "a.json", annotations([*IDS, 99], "mscoco", "val2014"))
    with pytest.raises(InputError, match=r"a\.json: 1 annotations"):
        read_official(asked, answered)
    count = len(entries(cache))
    with pytest.raises(InputError, match=r"moved\.json: 1 annotations"):
        read_official(asked, answered.rename(tmp_path / "moved.json"))
    assert len(entries(cache)) == count == 2


@pytest.mark.parametrize("damage", ["truncate", "empty", "flip", "other", "pickle"])
def test_a_damaged_entry_is_read_and_written_anew(
    tmp_path: Path, cache: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "q.json", questions(IDS, "mscoco", "val2014"))
    whole = read_official(path)
    (entry,) = entries(cache)
    data = entry.read_bytes()
    if damage == "truncate":
        entry.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        entry.write_bytes(b"")
    elif damage == "flip":
        place = data.index(b"What is number")
        entry.write_bytes(data[:place] + b"w" + data[place + 1 :])
    elif damage == "other":
        entry.write_text(json.dumps({}))
    else:
        with entry.open("wb") as file:
            np.savez(file, allow_pickle=True, **{"question_id_N.array": np.array([{}], dtype=object)})
    assert same(whole, read_official(path))
    assert "damaged" in " ".join(capsys.readouterr().err.split())
    assert entry.read_bytes() == data


def test_bad_input_leaves_no_entry(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "q.json", {"questions": []})
    with pytest.raises(InputError, match="no questions"):
        read_official(path)
    assert not entries(cache)


def test_a_file_that_changes_while_it_is_read_leaves_no_entry(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")

    def read() -> dict[str, str]:
        path.write_text("three")
        return {"text": "one"}

    assert cached_columns(path, "made", read) == {"text": "one"}
    assert not entries(cache)


def test_an_unwritable_cache_does_not_stop_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").touch()
    path = write(tmp_path / "q.json", questions(IDS, "mscoco", "val2014"))
    assert len(read_official(path)) == 5
    assert "cannot be written" in " ".join(capsys.readouterr().err.split())


def test_the_cache_lies_where_the_user_says_or_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQA_CACHE", "")
    monkeypatch.setattr(binary_cache, "SMALLEST", 0)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() is None
    read_official(write(tmp_path / "q.json", questions(IDS, "mscoco", "val2014")))
    assert not list(tmp_path.rglob("*.npz"))
    monkeypatch.delenv("VQA_CACHE")
    assert cache_folder() == tmp_path / "home" / ".cache" / "vqa"


def test_small_files_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQA_CACHE", str(tmp_path / "cache"))
    read_official(write(tmp_path / "q.json", questions(IDS, "mscoco", "val2014")))
    assert not (tmp_path / "cache").exists()
