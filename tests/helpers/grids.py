"""A grid of tiny runs, and processes that work on it."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import pytest
import yaml

import vqa.cli
from helpers.training import SUBPROCESS, values
from vqa.locks import Lease

FUSIONS: list[dict[str, Any]] = [
    {"name": "question_only"},
    {"name": "concat"},
    {"name": "product", "fusion_dim": 8},
    {"name": "stacked_attention", "hops": 1, "attention_dim": 8},
]


def write_grid(
    world: Path, folder: Path, *, fusions: Sequence[dict[str, Any]] = FUSIONS, seeds: Sequence[int] = (0, 1, 2),
    **training: Any,
) -> Path:  # fmt: skip
    """`grid.yaml` in a folder, whose runs land in its `runs` when it is run there."""
    folder.mkdir(parents=True, exist_ok=True)
    base = values(world, Path("runs"), training={"batch_size": 16, **training})
    (folder / "base.yaml").write_text(yaml.safe_dump(base), encoding="utf-8")
    grid = {"name": "grid", "base": "base.yaml", "grid": {"fusion": list(fusions)}, "seeds": list(seeds)}
    (folder / "grid.yaml").write_text(yaml.safe_dump(grid), encoding="utf-8")
    return folder


FORKS = get_context("forkserver")  # a new Python would first import torch, which takes longer than a grid of tiny runs


def start_server() -> None:
    """Start the process whose forks run the commands: it has imported everything, and trained nothing.

    torch takes no backward pass in a fork of a process that has taken one.
    """
    FORKS.set_forkserver_preload(["helpers.grids", "vqa.studies.launch"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        ensure_running()


class Ablate:
    """`vqa ablate grid.yaml` in a process of its own, begun at once; what it prints is in a log file."""

    def __init__(self, folder: Path, *options: str, log: str = "log") -> None:
        self.log = folder / log
        start_server()
        self.process = FORKS.Process(target=_command, args=(folder, self.log, ["ablate", "grid.yaml", *options]))
        self.process.start()

    @property
    def pid(self) -> int:
        """Its number."""
        assert self.process.pid is not None
        return self.process.pid

    def said(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(encoding="utf-8") if self.log.is_file() else ""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def ended(self, seconds: float = 180) -> int | None:
        """Its exit status; None where it has not ended in time, and is killed."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            return None
        return self.process.exitcode


def _command(folder: Path, log: Path, arguments: list[str]) -> None:
    os.setsid()
    os.chdir(folder)
    opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number in (1, 2):
        os.dup2(opened, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, encoding="utf-8", closefd=False) for number in (1, 2))
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(SUBPROCESS)
    sys.argv = ["vqa", *arguments]
    vqa.cli.main()


def wait_until(reached: Callable[[], object], seconds: float = 120) -> bool:
    """Whether something has come true in time."""
    deadline = time.monotonic() + seconds
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(reached())


def leases(folder: Path) -> list[Path]:
    """The leases of a grid's runs."""
    return sorted(folder.glob("runs/grid/*/*/.lease"))


def holder(lease: Path) -> int | None:
    """The process that has a lease, if it is alive."""
    held = Lease(lease).holder()
    return int(held.split()[1]) if held else None


def kill_one_at_work(folder: Path, among: Sequence[Ablate], choice: random.Random) -> int:
    """`kill -9`, at a random moment, one of some processes that has a run; its number."""
    alive = {process.pid for process in among}

    def at_work() -> list[int]:
        return sorted(alive & {pid for lease in leases(folder) if (pid := holder(lease))})

    wait_until(at_work)
    time.sleep(choice.uniform(0, 2))
    assert wait_until(at_work), "nobody is at work"
    victim = choice.choice(at_work())
    os.kill(victim, signal.SIGKILL)
    return victim
