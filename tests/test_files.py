"""Writing whole files or nothing, and reading them with messages that name the file."""

import errno
import fcntl
import hashlib
import json
import os
import stat
import threading
from pathlib import Path

import msgspec
import pytest

from vqa.errors import InputError
from vqa.files import atomic_write, lock, read_bytes, read_json, sha256_file, try_lock, write_json


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with atomic_write(path, "wb") as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    for path, said in ((tmp_path, "is a folder"), (tmp_path / "file" / "below", "cannot be written: ")):
        with pytest.raises(InputError, match=said) as caught:
            write_json(path, {})
        assert str(path) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_one_message_and_other_failures_are_not_hidden(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(InputError, match=r"a\.txt: cannot be written: No space left"), atomic_write(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="something else"), atomic_write(path):
        raise OSError(errno.EIO, "something else")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_json_goes_and_comes_with_every_letter(tmp_path: Path) -> None:
    value = {"b": ["ä", 1.5, None], "a": "\u2028"}
    write_json(tmp_path / "new" / "a.json", value)
    assert read_json(tmp_path / "new" / "a.json") == value
    assert list(json.loads((tmp_path / "new" / "a.json").read_text(encoding="utf-8"))) == ["b", "a"]


class _Row(msgspec.Struct):
    question_id: int


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b'{"question_id": "x"}', "question_id"),
        (b"", "not valid"),
    ],
)
def test_damaged_json_names_the_file(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        read_json(path, _Row)
    assert str(path) in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    for read in (read_bytes, read_json, sha256_file):
        with pytest.raises(InputError, match=r"none: no such file"):
            read(tmp_path / "none")
        with pytest.raises(InputError, match="cannot be read"):
            read(tmp_path)


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 1000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 1000).hexdigest()


def test_a_block_behind_a_lock_is_entered_by_one_at_a_time(tmp_path: Path) -> None:
    """An open file of its own is to the system what another process is."""
    path, order = tmp_path / "new" / ".lock", list[str]()

    def second() -> None:
        with lock(path):
            order.append("second")

    thread = threading.Thread(target=second)
    with lock(path, busy="never said"):
        with pytest.raises(InputError, match="somebody is there"), lock(path, busy="somebody is there"):
            order.append("never")
        thread.start()
        thread.join(timeout=0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    with lock(path, busy="never said"):
        assert path.read_bytes() == b""


def test_several_may_share_a_file_that_nobody_has_alone(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with (tmp_path / "a").open() as one, (tmp_path / "a").open() as two:
        assert try_lock(one.fileno(), tmp_path / "a", shared=True) and try_lock(
            two.fileno(), tmp_path / "a", shared=True
        )
        assert not try_lock(two.fileno(), tmp_path / "a")
        one.close()
        assert try_lock(two.fileno(), tmp_path / "a")


def test_where_nothing_can_be_locked_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/\.lock: cannot be written: "), lock(tmp_path / "file" / ".lock"):
        pass
    monkeypatch.setattr(fcntl, "flock", refuse)
    said = r"\.lock: this file system cannot lock files: .*; choose another disk"
    with pytest.raises(InputError, match=said), lock(tmp_path / ".lock"):
        pass
    entered = []
    with lock(tmp_path / ".lock", required=False):
        entered.append(True)
    assert entered
