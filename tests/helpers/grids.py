"""A grid of tiny runs, and processes that work on it."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from helpers.training import SUBPROCESS, values
from vqa.locks import Lease
from vqa.studies.worker import LEASE

FUSIONS = [
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


def start_ablate(folder: Path, *options: str, log: str | None = None) -> "subprocess.Popen[str]":
    """`vqa ablate grid.yaml` in a process of its own; what it prints is in a log file, or comes by `communicate`."""
    out = (folder / log).open("w") if log else subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", "vqa", "ablate", "grid.yaml", *options], cwd=folder, text=True,
        env=os.environ | SUBPROCESS, stdout=out, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_until(reached: Callable[[], object], seconds: float = 120) -> bool:
    """Whether something has come true in time."""
    deadline = time.monotonic() + seconds
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(reached())


def leases(folder: Path) -> list[Path]:
    """The leases of a grid's runs."""
    return sorted(folder.glob(f"runs/grid/*/*/{LEASE}"))


def holder(lease: Path) -> int | None:
    """The process that has a lease, if it is alive."""
    held = Lease(lease).holder()
    return int(held.split()[1]) if held else None


def kill_one_at_work(folder: Path, among: Sequence["subprocess.Popen[str]"], choice: random.Random) -> int:
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
