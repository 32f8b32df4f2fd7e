"""Keeping other processes out: of a file by `flock`, of work that lasts by a `Lease`.

A lease is a lock file that names machine and process and is touched every few seconds. It works on every file system
that several machines share; `flock` may be local to one machine there, or missing, and then it is a lease, too.
"""

import errno
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vqa.errors import BusyError, InputError
from vqa.progress import errors

HEARTBEAT_SECONDS = 5.0  # how often a lock file is touched
STALE_SECONDS = 120.0  # a lock file of another machine that was not touched for so long is of a dead process
SETTLE_SECONDS = 0.2  # after a take-over, until a second one, which can hardly be, would have been seen
WAIT_SECONDS = 0.1
LOOK_SECONDS = 0.02
LOOKS = 3  # at a lock that is held before it counts as held: `is_locked` holds it for a moment
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}  # of file systems without links


class Lock:
    """A lock on a file, held until `release`, or until the process ends, however it ends."""

    def __init__(self, descriptor: int | None = None, beside: "Lease | None" = None) -> None:
        self._descriptor, self._beside = descriptor, beside

    def release(self) -> None:
        """Let others in; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        if self._beside is not None:
            self._beside.release()
        self._descriptor = self._beside = None


def acquire(path: Path, *, wait: bool = False) -> Lock | None:
    """Lock a file for this process; it is made, empty, where it is not there.

    A file system without `flock` (some NFS and Lustre) gets a hidden lock file beside `path`, which names machine and
    process and is touched every few seconds: one whose process is dead, or whose machine has not touched it for two
    minutes, is taken over.

    Args:
        path: the file.
        wait: until no other process holds it.

    Returns:
        The lock, or without `wait` None where another process holds it.

    Raises:
        InputError: the file cannot be opened, or not be locked in either way.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be written: {getattr(error, 'strerror', error)}") from None
    try:
        held = hold(descriptor, wait=wait)
        for _ in range(LOOKS - 1):
            if held is not False:
                break
            time.sleep(LOOK_SECONDS)
            held = hold(descriptor)
    except BaseException:  # Ctrl-C while it waits
        os.close(descriptor)
        raise
    if held:
        return Lock(descriptor)
    os.close(descriptor)
    return None if held is False else _acquire_beside(path, wait)


@contextmanager
def lock(path: Path, *, busy: str | None = None, required: bool = True) -> Iterator[None]:
    """Keep other processes out of the same block meanwhile.

    Args:
        path: the file that is locked, see `acquire`; it is not removed.
        busy: the message when another process is in there; None waits until it has left.
        required: whether a file that cannot be locked is an error, or the block is entered all the same.

    Raises:
        BusyError: another process is in there.
        InputError: the file cannot be made or locked.
    """
    held: Lock | None
    try:
        held = acquire(path, wait=busy is None)
    except InputError:
        if required:
            raise
        held = Lock()
    if held is None:
        raise BusyError(busy)
    try:
        yield
    finally:
        held.release()


def share(descriptor: int) -> None:
    """Hold an open file beside others that hold it so, until it is closed; waits for one that has it alone."""
    import fcntl  # not on Windows, where the package is still imported, to say which systems it runs on

    fcntl.flock(descriptor, fcntl.LOCK_SH)


def is_locked(path: Path) -> bool:
    """Whether a process holds a file alone; nothing is made or written, and other readers are not in the way."""
    try:
        import fcntl  # as above

        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ImportError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go at once
    except BlockingIOError:
        return True
    except OSError:
        return False  # a file system without locks, on which a file beside it is touched
    finally:
        os.close(descriptor)
    return False


def hold(descriptor: int, *, wait: bool = False) -> bool | None:
    """Hold an open file alone until it is closed: whether nobody else held it, None where it cannot be locked."""
    try:
        import fcntl  # as above

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (OSError, ImportError):
        return None
    return True


def lease_beside(path: Path) -> Path:
    """The lock file of a file on a disk that cannot lock."""
    return path.with_name(f".{path.name.lstrip('.')[:200]}.lock-of")


def _acquire_beside(path: Path, wait: bool) -> Lock | None:
    lease = Lease(lease_beside(path))
    while not lease.take():
        if not wait:
            return None
        time.sleep(WAIT_SECONDS)
    errors.print(f"note: {path.parent}: this file system cannot lock files; a lock file keeps other processes out")
    return Lock(beside=lease)


class Lease:
    """Work that one process has for itself: a file that is there as long as it has it, on whatever machine it runs.

    The file names host, process and a random word, and is touched every few seconds. A lease whose process is dead, or
    whose machine has not touched it for `STALE_SECONDS`, is taken over.

    Args:
        path: the file; its folder is there.
        fatal: a process that has lost the lease (it was suspended, or its disk was away, for longer than
            `STALE_SECONDS`) ends at once and writes nothing more, because another one does its work by now.
        progress: how far the work is. Where it is the same as when a dead process took the lease, that process has
            saved nothing, and counts in `deaths`.

    Attributes:
        deaths: how many processes in a row have died with the lease before this one took it, none saving anything.
    """

    def __init__(self, path: Path, *, fatal: bool = False, progress: str = "") -> None:
        self.path, self._fatal = path, fatal
        self.deaths = 0
        self.owner: dict[str, object] = {**_place(), "process": os.getpid(), "word": secrets.token_hex(8)}
        self.owner |= {"started": _start_of(os.getpid()), "progress": progress, "deaths": 0}
        self._stop = threading.Event()

    def take(self) -> bool:
        """Whether the lease is now this process's.

        Raises:
            InputError: no such file can be made there.
        """
        try:
            if self._make():
                return True
            owner = self._read()
            return owner is not None and self._is_dead(owner) and self._take_over()
        except FileNotFoundError:
            return False  # it was released, or taken over, just now
        except OSError as error:
            raise InputError(f"{self.path}: this file system cannot lock files: {error.strerror}") from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait until the lease is this process's, and release it after the block."""
        while not self.take():
            time.sleep(WAIT_SECONDS)
        try:
            yield
        finally:
            self.release()

    def holder(self, now: float | None = None) -> str | None:
        """Who has it, in words; None where nobody that is alive has.

        Args:
            now: the time, in seconds since 1970, for those who write nothing; None asks the disk's clock by a file.
        """
        try:
            owner = self._read()
            if owner is None or self._is_dead(owner, now):
                return None
        except OSError:
            return None  # it was released just now
        return f"process {owner.get('process', '?')} on {owner.get('host', '?')}"

    def _take_over(self) -> bool:
        """Put this process's file in the place of a dead one's; the file is never missing meanwhile."""
        one_at_a_time = self.path.with_name(f"{self.path.name}.taking-over")
        try:
            one_at_a_time.mkdir()
        except FileExistsError:
            if self._silence(one_at_a_time) > STALE_SECONDS:  # of a process that was killed in these few lines
                one_at_a_time.rmdir()
            return False
        try:
            owner = self._read()
            if owner is None or not self._is_dead(owner):
                return False
            self.owner["deaths"] = self.deaths = self._deaths(owner)
            self._write_own().replace(self.path)
        finally:
            one_at_a_time.rmdir()
        time.sleep(SETTLE_SECONDS)
        if self._read() != self.owner:
            return False
        self._keep_fresh()
        return True

    def _deaths(self, dead: dict[str, object]) -> int:
        """How many processes in a row have died at work that is as far as it is now, a dead one among them."""
        before = dead.get("deaths")
        went_on = dead.get("progress") != self.owner["progress"]
        return 1 if went_on or not isinstance(before, int) else before + 1

    def release(self) -> None:
        """Give the lease back; what is not this process's is left."""
        self._stop.set()
        self._stop = threading.Event()
        with suppress(OSError):  # a disk that is gone: the lease will be found dead
            if self._read() == self.owner:
                self.path.unlink(missing_ok=True)

    def _make(self) -> bool:
        """Make the file, whole as soon as it is there, and keep it fresh; False where it is there already."""
        if self.path.exists():
            return False
        own = self._write_own()
        try:
            os.link(own, self.path)
        except FileExistsError:
            if self._read() != self.owner:  # some network disks repeat a request of which only the answer was lost
                return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            try:
                with self.path.open("x", encoding="utf-8") as file:
                    json.dump(self.owner, file)
            except FileExistsError:
                return False
        finally:
            own.unlink(missing_ok=True)
        self._keep_fresh()
        return True

    def _write_own(self) -> Path:
        """A file beside the lease's, for `link` and `rename`, which are atomic."""
        own = self.path.with_name(f"{self.path.name}.{self.owner['word']}")
        try:
            own.write_text(json.dumps(self.owner), encoding="utf-8")
        except OSError:  # the disk is full
            own.unlink(missing_ok=True)
            raise
        return own

    def _keep_fresh(self) -> None:
        threading.Thread(target=self._beat, args=(self._stop,), daemon=True).start()

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            try:
                if self._read() == self.owner:
                    os.utime(self.path)
                    continue
            except OSError:
                continue  # a disk of the network that does not answer now
            if self._fatal and not stop.is_set():
                _end_at_once(f"{self.path}: is another process's by now, as this one was not heard of for too long")
            return

    def _read(self) -> dict[str, object] | None:
        return _owner(self.path)

    def _is_dead(self, owner: dict[str, object], now: float | None = None) -> bool:
        """Whether the process that made the file is gone; of one not seen from here, whether it was silent for long."""
        if all(owner.get(name) == value for name, value in _place().items()):
            process = owner.get("process")
            return not isinstance(process, int) or _start_of(process) != owner.get("started")
        return self._silence(self.path, now) > STALE_SECONDS

    def _silence(self, path: Path, now: float | None = None) -> float:
        """Seconds since a file or folder was touched."""
        return (disk_time(self.path.parent) if now is None else now) - path.stat().st_mtime


def disk_time(folder: Path) -> float:
    """The time by the clock of the disk that a folder is on, which is made; machines may have other clocks."""
    folder.mkdir(parents=True, exist_ok=True)
    now = folder / f".{secrets.token_hex(8)}.now"
    now.touch()
    try:
        return now.stat().st_mtime
    finally:
        now.unlink(missing_ok=True)


def _end_at_once(message: str) -> None:
    """End the process whatever it is doing, without another line written to its files."""
    with suppress(OSError):
        os.write(2, f"vqa: {message}\n".encode())
    os._exit(1)


def _owner(path: Path) -> dict[str, object] | None:
    """What a lock file says; None where there is none, an empty one for a file that says nothing."""
    try:
        said = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _place() -> dict[str, str]:
    """Where process numbers mean the same processes: the host, since it was started, and the container there."""
    found = {"host": socket.gethostname()}
    with suppress(OSError):
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        found["container"] = str(Path("/proc/self/ns/pid").readlink())
    return found


def _start_of(process: int) -> str | None:
    """When a process of this place was started, in a form that its successor of the same number does not share.

    None where there is no such process, or only its exit status is left; "" where the system does not say.
    """
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass
    try:
        state, *after = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if state in ("Z", "X") else after[18]
    except (OSError, IndexError):
        return ""
