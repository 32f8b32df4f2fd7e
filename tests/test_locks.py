"""Locks that keep other processes out, on file systems with `flock` and without."""

import errno
import fcntl
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vqa import locks
from vqa.errors import InputError
from vqa.locks import Lease, acquire, hold, is_locked, lock, share


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


def test_a_killed_process_is_dead_before_its_parent_has_looked(tmp_path: Path, without_flock: int) -> None:
    """A zombie still has its number and its start."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        owner = said(tmp_path) | {"process": child.pid}
        start = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        lock_file(tmp_path).write_text(json.dumps(owner | {"started": start}))
        assert acquire(tmp_path / ".lock") is None
        child.kill()
        deadline = time.monotonic() + 60
        while (held := acquire(tmp_path / ".lock")) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert held is not None and child.returncode is None
        held.release()
    finally:
        child.kill()
        child.wait()


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


def foreign(**changes: object) -> str:
    """What the lease of a process on another machine says."""
    return json.dumps({"host": "elsewhere", "process": 1, "started": "1", "word": "other"} | changes)


def test_a_lease_is_had_by_one_and_says_by_whom(tmp_path: Path) -> None:
    path = tmp_path / ".lease"
    one, two = Lease(path), Lease(path)
    assert one.holder() is None and one.take() and not two.take()
    assert two.holder() == f"process {os.getpid()} on {socket.gethostname()}"
    two.release()  # what is another's is left
    assert not two.take()
    one.release()
    assert two.holder() is None and two.take()
    two.release()
    assert list(tmp_path.iterdir()) == []


def test_the_lease_of_another_machine_is_taken_over_after_its_silence(tmp_path: Path) -> None:
    path = tmp_path / ".lease"
    path.write_text(foreign())
    assert Lease(path).holder() == "process 1 on elsewhere" and not Lease(path).take()
    silent = time.time() - locks.STALE_SECONDS
    os.utime(path, (silent + 30, silent + 30))
    assert not Lease(path).take()
    os.utime(path, (silent - 30, silent - 30))
    assert Lease(path).holder() is None
    taken = Lease(path)
    assert taken.take() and json.loads(path.read_text()) == taken.owner
    taken.release()
    assert list(tmp_path.iterdir()) == []


def test_silence_is_told_by_the_clock_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose own clock is a day ahead takes nothing from the living."""
    path = tmp_path / ".lease"
    path.write_text(foreign())
    monkeypatch.setattr(time, "time", lambda: 86_400.0 * 365 * 100)
    assert not Lease(path).take()


def test_a_file_system_without_links_has_leases_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    one = Lease(tmp_path / ".lease")
    assert one.take() and not Lease(tmp_path / ".lease").take()
    one.release()
    assert list(tmp_path.iterdir()) == []


LOSER = (
    "import pathlib, sys, time\n"
    "from vqa import locks\n"
    "locks.HEARTBEAT_SECONDS = 0.05\n"
    "assert locks.Lease(pathlib.Path(sys.argv[1]), fatal=True).take()\n"
    "print('taken', flush=True)\n"
    "time.sleep(60)\n"
)


def test_a_process_that_has_lost_its_lease_ends_at_once(tmp_path: Path) -> None:
    """As one that was suspended for longer than others wait: another does its work by now."""
    path = tmp_path / ".lease"
    child = subprocess.Popen(
        [sys.executable, "-c", LOSER, str(path)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdout.readline() == "taken\n"
    (tmp_path / "other").write_text(foreign())
    (tmp_path / "other").replace(path)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 1 and said == (
        f"vqa: {path}: is another process's by now, as this one was not heard of for too long\n"
    )
    assert json.loads(path.read_text())["host"] == "elsewhere"


CROWD = """
import os, pathlib, random, signal, sys, time
from vqa.locks import Lease

folder, random = pathlib.Path(sys.argv[1]), random.Random(int(sys.argv[2]))
runs = [folder / str(number) for number in range(3)]
deadline = time.monotonic() + 60
while (left := [run for run in runs if not (run / "done").exists()]) and time.monotonic() < deadline:
    run = random.choice(left)
    lease = Lease(run / ".lease")
    if not lease.take():
        time.sleep(0.002)
        continue
    if (run / "done").exists():
        lease.release()
        continue
    inside = run / "inside"
    if inside.exists():  # of one that was killed in here; who is alive would be seen by its number
        other = int(inside.read_text())
        try:
            state = pathlib.Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            state = "Z"
        if state != "Z":
            (folder / "two at once").touch()
        inside.unlink()
    part = run / f"part-{os.getpid()}"
    part.write_text(str(os.getpid()))
    try:
        os.link(part, inside)
    except FileExistsError:
        (folder / "two at once").touch()
    part.unlink()
    time.sleep(random.uniform(0, 0.01))
    steps = run / "steps"
    count = int(steps.read_text() or 0) if steps.exists() else 0
    struck = run / f"struck-{count}"
    if count in (4, 9, 14) and not struck.exists():  # three times in each run, whoever is in it
        struck.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    steps.write_text(str(count + 1))
    if count + 1 >= 20:
        (run / "done").touch()
    inside.unlink()
    lease.release()
"""


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
def test_two_never_have_one_run_at_the_same_time(tmp_path: Path, seed: int) -> None:
    """Eight processes over three runs of twenty steps, nine killed within a step, each followed by another."""
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    (tmp_path / "crowd.py").write_text(CROWD)

    def start(number: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, str(tmp_path / "crowd.py"), str(tmp_path), str(number)])

    crowd, numbers = [start(100 * seed + number) for number in range(8)], itertools.count(100 * seed + 8)
    deadline, killed = time.monotonic() + 120, 0
    while crowd and time.monotonic() < deadline:
        ended = [process for process in crowd if process.poll() is not None]
        fallen = [process for process in ended if process.returncode == -signal.SIGKILL]
        assert {process.returncode for process in ended} <= {0, -signal.SIGKILL}
        killed += len(fallen)
        crowd = [process for process in crowd if process not in ended] + [start(next(numbers)) for _ in fallen]
        time.sleep(0.02)
    assert not crowd and not (tmp_path / "two at once").exists()
    assert [(tmp_path / str(number) / "steps").read_text() for number in range(3)] == ["20"] * 3
    assert killed == 9


def test_a_look_at_a_lock_is_no_holder_of_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.touch()
    assert not is_locked(path) and not is_locked(tmp_path / "none")
    with path.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)  # as `is_locked` has it, for longer
        assert not is_locked(path)
        threading.Timer(locks.LOOK_SECONDS / 2, looking.close).start()
        held = acquire(path)
    assert held is not None and is_locked(path)
    held.release()
    assert not is_locked(path)
