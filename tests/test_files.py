"""Writing whole files or nothing, and reading them with messages that name the file."""

import errno
import hashlib
import json
import os
import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import msgspec
import pytest
from helpers.devices import device

from vqa.data.formats.decode import decode_file
from vqa.errors import InputError
from vqa.files import atomic_folder, atomic_write, read_bytes, read_json, sha256_file, sweep, write_json

Capture = pytest.CaptureFixture[str]


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


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    for path, said in ((tmp_path, "is a folder"), (tmp_path / "file" / "below", "cannot be written: ")):
        with pytest.raises(InputError, match=said) as caught:
            write_json(path, {})
        assert str(path) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


class Hiding:
    """Writes as torch.save does: what the disk said is lost in an error of its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def write(self, content: bytes) -> None:
        try:
            self.file.write(content)
            self.file.flush()
        except OSError:
            raise RuntimeError("file write failed") from None


@pytest.mark.parametrize("hidden", [False, True])
def test_a_full_disk_is_one_message_whatever_the_writer_makes_of_it(tmp_path: Path, hidden: bool) -> None:
    """A limit on the size of files stands for the full disk: the same call of the system fails."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        said = r"a\.txt: cannot be written: File too large; what was there before is kept"
        with pytest.raises(InputError, match=said), atomic_write(path, "wb") as file:
            (Hiding(file) if hidden else file).write(bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_failures_of_something_else_are_not_hidden(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="something else"), atomic_write(path):
        raise OSError(errno.EIO, "something else")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_permissions_of_the_umask_and_an_old_one_its_own(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_json(tmp_path / "new.json", 1)
        (tmp_path / "old.json").touch()
        (tmp_path / "old.json").chmod(0o640)
        write_json(tmp_path / "old.json", 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.json").stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / "old.json").stat().st_mode) == 0o640


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "a.json")
    for value in (1, 2):  # first a link to nothing
        write_json(tmp_path / "link.json", value)
        assert (tmp_path / "link.json").is_symlink() and read_json(tmp_path / "real" / "a.json") == value
    (tmp_path / "ring").symlink_to(tmp_path / "ring")
    with pytest.raises(InputError, match=r"ring: cannot be written"):
        write_json(tmp_path / "ring", 1)


def test_a_pipe_and_a_device_are_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_json(pipe, {"a": 1})
    reader.join(timeout=10)
    assert json.loads(read[0]) == {"a": 1} and stat.S_ISFIFO(pipe.stat().st_mode)
    null, full = device(tmp_path, "null"), device(tmp_path, "full")
    write_json(null, 1)
    assert stat.S_ISCHR(null.stat().st_mode)
    with pytest.raises(InputError, match="full: cannot be written: No space left"):
        write_json(full, 1)


@pytest.mark.parametrize("redirected", [True, False], ids=["into a file", "into a pipe"])
def test_standard_output_by_its_name_keeps_what_was_there(tmp_path: Path, redirected: bool) -> None:
    """`--json /dev/stdout >> log` and `--json /dev/stdout | …`, and `--json >(…)`, a pipe by its descriptor's name."""
    code = "from pathlib import Path; from vqa.files import write_json; write_json(Path('/dev/stdout'), 1)"
    (tmp_path / "log").write_text("before\n")
    if redirected:
        with (tmp_path / "log").open("a") as log:
            subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
        assert (tmp_path / "log").read_text() == "before\n1\n"
    else:
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ended.stdout == "1\n"
    into, out = os.pipe()
    write_json(Path(f"/dev/fd/{out}"), 2)
    assert os.read(into, 10) == b"2\n"
    os.close(into)
    os.close(out)


def test_a_hyphen_is_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(Path("-"), {"a": 1})
    with atomic_write(Path("-"), "wb") as file:
        file.write(b"b")
    assert capfd.readouterr().out == '{\n  "a": 1\n}\nb' and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "a" * 240 + ".json"])
def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path: Path, name: str) -> None:
    write_json(tmp_path / name, 1)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a" * 256, "a\0b", "new/" + "b" * 300, "x/" * 3000])
def test_a_name_that_cannot_be_is_one_short_message(tmp_path: Path, name: str) -> None:
    for use in (lambda path: write_json(path, 1), read_bytes, sha256_file):
        with pytest.raises(InputError, match="cannot be") as caught:
            use(tmp_path / name)
        assert len(str(caught.value)) < 400


KILLED = """
import os, signal, sys
from pathlib import Path
from vqa.files import atomic_folder, atomic_write
with atomic_write(Path(sys.argv[1], "a.json")) as file, atomic_folder(Path(sys.argv[1], "folder")) as folder:
    (folder / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_killed_writers_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    def parts() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir())

    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False).returncode == -9
    assert len(parts()) == 2
    (tmp_path / ".b.json.abcd1234.part").touch()  # as versions before 0.2 named them
    for other in (".b.json.part", "b.0123456789abcdef.part", ".b.0123456789ABCDEF.part"):
        (tmp_path / other).touch()
    with atomic_write(tmp_path / "c.json") as file:
        sweep(tmp_path)
        file.write("1")
    assert parts() == [".b.0123456789ABCDEF.part", ".b.json.part", "b.0123456789abcdef.part", "c.json"]


def test_the_next_writer_of_a_file_or_folder_removes_its_own(tmp_path: Path) -> None:
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    write_json(tmp_path / "a.json", 1)
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "whole").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.json", "folder", "whole"]


def test_a_folder_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "a") as folder:
        (folder / "half").touch()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kept").touch()
    with pytest.raises(InputError, match=r"/a: cannot be written: Directory not empty"), atomic_folder(tmp_path / "a"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "kept"]


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", device(tmp_path, "zero"), tmp_path):
        for read in (read_bytes, read_json, sha256_file):
            with pytest.raises(
                InputError, match=r"cannot be read: it is a (pipe, socket or device|folder), not a file"
            ):
                read(path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(InputError, match=r"large: has 4,398,046,511,104 bytes; at most 17,179,869,184 are read"):
        read_bytes(tmp_path / "large")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_json_nested_without_end_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json: not valid JSON"):
        read_json(tmp_path / "a.json")


def test_json_goes_and_comes_with_every_letter(tmp_path: Path) -> None:
    value = {"b": ["ä", 1.5, None], "a": "\u2028"}
    write_json(tmp_path / "new" / "a.json", value)
    assert read_json(tmp_path / "new" / "a.json") == value
    assert list(json.loads((tmp_path / "new" / "a.json").read_text(encoding="utf-8"))) == ["b", "a"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_is_read_as_its_byte_order_mark_says(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes('{"ä": "中文 😀"}'.encode(encoding))
    assert read_json(path) == {"ä": "中文 😀"}
    assert decode_file(path, dict[str, str]) == {"ä": "中文 😀"}  # as the readers of data sets do
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"a\.json: (begins as UTF-(16|32) but is not|not valid JSON)"):
        read_json(path)


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
