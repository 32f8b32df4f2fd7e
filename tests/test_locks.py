"""Locks that keep other processes out, on file systems with `flock` and without."""

import errno
import fcntl
import json
import os
import threading
import time
from pathlib import Path

import pytest

from vqa import locks
from vqa.errors import InputError
from vqa.locks import acquire, hold, lock, share


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
        share(one.fileno())
        share(two.fileno())
        assert hold(two.fileno()) is False
        one.close()
        assert hold(two.fileno())


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/\.lock: cannot be written: "), lock(tmp_path / "file" / ".lock"):
        pass
    entered = []
    with lock(tmp_path / "file" / ".lock", required=False):
        entered.append(True)
    assert entered


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def without_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)
    return int(request.param)


def test_without_flock_a_lock_file_keeps_others_out(
    tmp_path: Path, without_flock: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with lock(tmp_path / ".lock", busy="busy"):
        assert "this file system cannot lock files; a lock file keeps other processes out" in capfd.readouterr().err
        with pytest.raises(InputError, match="busy"), lock(tmp_path / ".lock", busy="busy"):
            pass
        assert acquire(tmp_path / "other") is not None  # another file is another lock
    held = acquire(tmp_path / ".lock")
    assert held is not None and acquire(tmp_path / ".lock") is None
    held.release()
    held.release()
    assert acquire(tmp_path / ".lock") is not None


def test_without_flock_one_waits_until_the_other_has_left(tmp_path: Path, without_flock: int) -> None:
    test_a_block_behind_a_lock_is_entered_by_one_at_a_time(tmp_path)


def lock_file(folder: Path) -> Path:
    return folder / ".lock.lock-of"


def said(folder: Path) -> dict[str, object]:
    """What a lock file of this process says."""
    held = acquire(folder / "mine")
    assert held is not None
    found: dict[str, object] = json.loads((folder / ".mine.lock-of").read_text())
    held.release()
    (folder / "mine").unlink()
    return found


ENDED: dict[str, object] = {"process": 2**22 + 1}  # above every process number


@pytest.mark.parametrize(
    ("changes", "age", "taken"),
    [
        (ENDED, 0.0, True),
        ({"word": "another"}, 1e6, False),  # this very process, which was suspended
        ({"started": "1"}, 0.0, True),  # its number is another's now
        ({"process": "one"}, 0.0, True),
        ({"host": "elsewhere"}, 0.0, False),
        ({"host": "elsewhere"}, 1e6, True),
        (ENDED | {"container": "pid:[1]"}, 0.0, False),  # of another container, whose processes are not seen here
        (ENDED | {"container": "pid:[1]"}, 1e6, True),
        ({"boot": "before"}, 1e6, True),
        (None, 0.0, False),  # being written
        (None, 1e6, True),
    ],
)
def test_the_lock_file_of_a_dead_process_is_taken_over(
    tmp_path: Path, without_flock: int, changes: dict[str, object] | None, age: float, taken: bool
) -> None:
    owner = said(tmp_path)
    lock_file(tmp_path).write_text("[]" if changes is None else json.dumps(owner | changes))
    os.utime(lock_file(tmp_path), (time.time() - age,) * 2)
    assert (acquire(tmp_path / ".lock") is not None) is taken
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".lock.lock-of"]


def test_a_held_lock_file_stays_fresh(tmp_path: Path, without_flock: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.02)
    held = acquire(tmp_path / ".lock")
    assert held is not None
    os.utime(lock_file(tmp_path), (0, 0))
    ends = time.monotonic() + 10
    while lock_file(tmp_path).stat().st_mtime < 1 and time.monotonic() < ends:
        time.sleep(0.01)
    assert lock_file(tmp_path).stat().st_mtime > 1
    held.release()
    assert not lock_file(tmp_path).exists()


@pytest.mark.parametrize("_", range(5))
def test_of_many_that_take_over_at_once_one_gets_it(tmp_path: Path, without_flock: int, _: int) -> None:
    """Twenty threads, each with a lock of its own, find the lock file of a dead process."""
    lock_file(tmp_path).write_text(json.dumps({"host": "elsewhere", "process": 1}))
    os.utime(lock_file(tmp_path), (0, 0))
    begun, got = threading.Barrier(20), list[locks.Lock]()

    def take() -> None:
        begun.wait()
        held = acquire(tmp_path / ".lock")
        if held is not None:
            got.append(held)

    threads = [threading.Thread(target=take) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    got[0].release()
