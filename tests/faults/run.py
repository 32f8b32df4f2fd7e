"""Run cases: each in a forked child of one process that has imported everything, in a fresh copy of the world.

A fork takes milliseconds where a new Python takes seconds to import torch, and is a process like any other: it can be
killed, limited and crash without harm to the next case.
"""

import importlib
import os
import pkgutil
import resource
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from faults.case import SPACE, Case, Ended, Outcome, UndisturbedError, contents, judge

BUSY = 4  # how much longer a command may take where others use the machine
ENVIRONMENT = {
    "COLUMNS": "200",
    "OMP_NUM_THREADS": "1",
    "WANDB_MODE": "disabled",
    "PYTHONWARNINGS": "ignore",
    "HF_HUB_OFFLINE": "1",
}


def import_everything() -> None:
    """What the commands would import one by one, once for all children."""
    import encodings

    import torch

    import vqa

    torch.set_num_threads(1)
    for name in (
        "matplotlib.figure",
        "PIL.Image",
        "torchvision.models",
        "requests",
        "pooch",
        "safetensors.torch",
        "pydoc",
        "fileinput",  # of a user who may not read the standard library
    ):
        importlib.import_module(name)
    for module in pkgutil.iter_modules(encodings.__path__):
        if module.name not in ("mbcs", "oem"):  # of Windows
            importlib.import_module(f"encodings.{module.name}")
    for module in pkgutil.walk_packages(vqa.__path__, "vqa."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def start(action: Callable[[], object], folder: Path, out: Path, err: Path) -> int:
    """Start an action in a forked child whose current folder and outputs are the given ones; returns its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _act(action, folder, out, err)
    return child


def _act(action: Callable[[], object], folder: Path, out: Path, err: Path) -> NoReturn:
    status = 1
    try:
        os.setsid()
        os.chdir(folder)
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        for number, path in ((1, out), (2, err)):
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(opened, number)
            os.close(opened)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.environ.update(ENVIRONMENT | {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "xdg")})
        try:
            action()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError as error:
            print(f"Traceback (most recent call last) at the end: {error}", file=sys.stderr)
            status = 120  # as Python itself ends where it cannot write its last words
    finally:
        os._exit(status & 0xFF)


def command(arguments: list[str]) -> Callable[[], None]:
    """`vqa` with these arguments, as the console script calls it."""

    def act() -> None:
        import vqa.cli

        sys.argv = ["vqa", *arguments]
        vqa.cli.main()

    return act


def limited(space: int = SPACE) -> None:
    """Keep this process from taking the machine's memory: so much address space above what it has now."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + space, now + space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def wait(child: int, seconds: float) -> int | None:
    """The exit status of a child, negative where a signal ended it; None, and killed, where it takes longer.

    On a busy machine it gets more time as long as it computes, until it has computed for so many seconds.
    """
    began = looked = time.monotonic()
    computed, pause = 0.0, 0.001
    while True:
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(code)
        now = time.monotonic()
        if now - looked > 2.0:
            before, computed, looked = computed, _computed(child), now
            idle = computed - before < 0.05
            if now - began > seconds and (idle or computed > seconds or now - began > BUSY * seconds):
                break
        elif now - began > seconds and seconds < 2.0:
            break
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
    end(child)
    return None


def end(child: int) -> None:
    """Kill a child and what it has started, at whatever moment, and wait for it."""
    with suppress(ProcessLookupError):  # it has no group of its own yet
        os.killpg(child, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _computed(child: int) -> float:
    """Seconds that a process has computed, its threads together."""
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(action: Callable[[], object], folder: Path, seconds: float) -> Ended:
    """Run an action in a child, to its end or for so many seconds."""
    with tempfile.TemporaryDirectory() as said:
        out, err = Path(said, "out"), Path(said, "err")
        began = time.monotonic()
        child = start(action, folder, out, err)
        status = wait(child, seconds)
        read = [path.read_bytes()[:1_000_000] if path.exists() else b"" for path in (out, err)]
        return Ended(status, read[0], read[1], time.monotonic() - began)


def try_case(case: Case, world: Path) -> Outcome:
    """Run one case in a copy of the world, and judge it."""
    with tempfile.TemporaryDirectory(prefix="fault-", ignore_cleanup_errors=True) as holder:
        folder = Path(holder, "w")
        shutil.copytree(world, folder)
        make_devices(folder)
        case.prepare(folder)
        if case.attempt is not None:
            try:
                return case.attempt(case, folder)
            except UndisturbedError as error:
                return Outcome(case.name, "wrong", str(error))
        before = contents(folder)

        def act() -> None:
            limited()
            with case.around(folder):
                command([argument.replace("{w}", str(folder)) for argument in case.arguments])()

        ended = run(act, folder, case.seconds)
        after = contents(folder)
        wrong = case.after(folder) if ended.status is not None else ""
        for path in folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        if not Path(os.devnull).is_char_device():
            raise RuntimeError(f"{case.name}: has replaced {os.devnull}: sudo mknod -m 666 {os.devnull} c 1 3")
        return judge(case, ended, before, after, wrong)


def make_devices(folder: Path) -> None:
    """Devices of the world's own, `null` and `full`: root replaces those of the machine where a command is wrong."""
    for name, minor in (("null", 3), ("full", 7)):
        if os.geteuid() == 0:
            os.mknod(folder / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        else:
            (folder / name).symlink_to(f"/dev/{name}")
