"""Real signals in real processes: what is done is saved; a signal that arrives ignored stays ignored."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from helpers.training import SUBPROCESS, make_world, values

from vqa.errors import InputError
from vqa.experiment import read_experiment
from vqa.features.cache.reader import FeatureCache
from vqa.runtime.stopping import StopSignal, interrupting_signals, stop_signals
from vqa.training.run_folder import RunFolder, load_state

SAVING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
LAUNCHER = (  # signals as a shell, nohup or a script leaves them, whatever the tests were started by
    "import os, signal, sys\n"
    "for number in map(int, sys.argv[1].split(',')): signal.signal(number, signal.SIG_DFL)\n"
    "for number in map(int, filter(None, sys.argv[2].split(','))): signal.signal(number, signal.SIG_IGN)\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'vqa', *sys.argv[3:]])\n"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def command(arguments: Sequence[str], ignored: Sequence[int] = ()) -> list[str]:
    """The command that starts vqa with some signals ignored and the others at their defaults."""
    defaults, ignoring = (",".join(str(int(number)) for number in some) for some in (SAVING, ignored))
    return [sys.executable, "-c", LAUNCHER, defaults, ignoring, *arguments]


def start(arguments: Sequence[str], ignored: Sequence[int] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(arguments, ignored), env=os.environ | SUBPROCESS, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not reached() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)


def endless(world: Path, folder: Path) -> tuple[Path, RunFolder]:
    """An experiment of more epochs than any test waits for."""
    path = folder / "e.yaml"
    training = {"epochs": 100_000, "batch_size": 64}
    path.write_text(yaml.safe_dump(values(world, folder, training=training)), encoding="utf-8")
    return path, RunFolder(read_experiment(path).folder)


def some_done(cache: Path) -> bool:
    try:
        return bool(FeatureCache(cache).done_I.any())
    except InputError:
        return False


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_an_extraction_ends_and_says_how_to_go_on(world: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out.h5"
    options = ["--format", "vqa_v2", "--split", "train", "--encoder", "squeezenet1_1", "--layer", "features.12"]
    options += ["--image-size", "896", "--weights", "random", "--workers", "1", "--batch-size", "1"]
    process = start(["features", "extract", "--data", str(world / "data"), *options, "--out", str(out)])
    wait_for(lambda: some_done(out), process)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said, said
    assert f"Interrupted by {number.name}" in said and "Go on with: vqa features extract" in said
    assert 0 < FeatureCache(out).done_I.sum() < len(FeatureCache(out))


def test_signals_that_arrive_ignored_stay_ignored(world: Path, tmp_path: Path) -> None:
    """As `nohup vqa train …`, and as Ctrl-C for what a script starts in the background."""
    path, folder = endless(world, tmp_path)
    ignored = [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]
    process = start(["train", str(path)], ignored)
    wait_for(folder.state.is_file, process)
    for number in ignored:
        process.send_signal(number)
    before = load_state(folder.state)["progress"]["epoch"]
    wait_for(lambda: load_state(folder.state)["progress"]["epoch"] > before + 1, process)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and said.count(": stopping after this step") == 1 and "SIGTERM: stopping" in said


def test_a_terminal_that_is_closed_ends_a_run_as_saved(world: Path, tmp_path: Path) -> None:
    """Nothing can be written to it any more, and a message that failed would end the run before it has saved."""
    path, folder = endless(world, tmp_path)
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command(["train", str(path)]), env=os.environ | SUBPROCESS, text=True,
        stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=take_terminal,
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)

    def saved() -> bool:
        with suppress(BlockingIOError):
            os.read(ours, 1 << 16)  # a terminal that nobody reads is full before long
        return folder.state.is_file()

    wait_for(saved, process)
    saved_at = folder.state.stat().st_mtime_ns
    os.close(ours)
    assert process.wait(timeout=60) == 130
    assert folder.state.stat().st_mtime_ns >= saved_at and load_state(folder.state)["progress"]["epoch"] >= 1
    assert not list(folder.path.glob(".*.part"))


@pytest.fixture
def defaults() -> Iterator[None]:
    """Signals as in a terminal, whatever the tests were started by."""
    before = {number: signal.getsignal(number) for number in SAVING}
    for number in SAVING:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_what_often_comes_twice_asks_once(
    defaults: None, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    """The kernel and the shell both tell of a closed terminal."""
    with stop_signals() as stop:
        for _ in range(3):
            os.kill(os.getpid(), number)
    assert stop.asked and capsys.readouterr().out.count(f"{number.name}: stopping after this step") == 1
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_second_ctrl_c_ends_at_once(defaults: None) -> None:
    with pytest.raises(KeyboardInterrupt), stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.asked


@pytest.mark.parametrize("number", SAVING)
def test_work_without_steps_ends_where_it_is(defaults: None, number: signal.Signals) -> None:
    with pytest.raises(StopSignal, match=number.name), interrupting_signals():
        os.kill(os.getpid(), number)
        time.sleep(10)


def test_a_signal_within_a_destructor_is_not_lost(defaults: None, capfd: pytest.CaptureFixture[str]) -> None:
    """Python drops what is raised there, a weak reference's callback while a module is imported, say."""

    class Noisy:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGHUP)

    before = sys.unraisablehook
    with pytest.raises(StopSignal, match="SIGHUP"), interrupting_signals():
        Noisy()
        time.sleep(10)
    assert sys.unraisablehook is before and capfd.readouterr() == ("", "")


def test_an_error_that_comes_of_a_dropped_signal_is_the_signal(defaults: None) -> None:
    """HDF5 drops what is raised in a callback of its own, and then lacks what it had not read."""
    with pytest.raises(StopSignal, match="SIGHUP"), interrupting_signals():
        with suppress(BaseException):
            signal.raise_signal(signal.SIGHUP)
        raise InputError("an attribute is missing")
