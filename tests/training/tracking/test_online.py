"""W&B online, against a server that takes a run as W&B's does, and then hangs or breaks off."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.training import PROJECT, SUBPROCESS, experiment
from training.tracking.stand_in import StandIn

from vqa.training.tracking import wandb_tracker
from vqa.training.tracking.protocol import Tracker
from vqa.training.tracking.trackers import track_training


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    import wandb

    made = StandIn()
    for name, value in environment(made, tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    wandb.teardown()  # it reads the environment once
    yield made
    wandb.teardown()
    made.close()


def environment(server: StandIn, folder: Path) -> dict[str, str]:
    return {"WANDB_BASE_URL": server.address, "WANDB_API_KEY": "k" * 40, "HOME": str(folder)}


def tracker_of(folder: Path) -> Tracker:
    return track_training(folder, experiment(folder, folder, tracking={"wandb": "online"}), dict)


def row(epoch: int) -> dict[str, float | str]:
    return {"epoch": epoch, "train/loss": 1 / epoch, "val/open_ended/overall": 9.0 - epoch, "val/protocol": "2021"}


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.1)


def test_two_parts_are_one_run_with_each_row_once(server: StandIn, tmp_path: Path) -> None:
    for first in (1, 3):
        tracker = tracker_of(tmp_path)
        for epoch in (first, first + 1):
            tracker.log(row(epoch), epoch)
        tracker.finish()
    ((identity, kept),) = server.runs.items()
    assert identity == json.loads((tmp_path / "tracking.json").read_text())["wandb_id"]
    found = [{name: value for name, value in one.items() if name in row(1)} for one in kept.history]
    assert found == [row(epoch) for epoch in (1, 2, 3, 4)]
    assert [one["_step"] for one in kept.history] == [1, 2, 3, 4] and kept.exit_code == 0
    assert kept.summary["best_epoch"] == 1 and kept.summary["val/open_ended/overall"] == 8.0
    assert kept.summary["epoch"] == 4


@pytest.mark.parametrize("how", ["hanging", "breaking"])
def test_a_server_that_fails_in_the_middle_slows_nothing_and_the_rest_is_sent_later(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    monkeypatch.setattr(wandb_tracker, "ENDING", 2)
    tracker = tracker_of(tmp_path)
    setattr(server, how, 600.0)
    began = time.monotonic()
    for epoch in range(1, 100):
        tracker.log(row(epoch), epoch)
    assert time.monotonic() - began < 15
    tracker.finish()
    assert time.monotonic() - began < 45
    said = " ".join(capsys.readouterr().out.split())
    assert "W&B failed at the end" in said and "send the rest by: wandb sync" in said


KILLED = (
    "import os, sys\n"
    "from pathlib import Path\n"
    "from helpers.training import experiment\n"
    "from vqa.training.tracking.trackers import track_training\n"
    "folder = Path(sys.argv[1])\n"
    "tracker = track_training(folder, experiment(folder, folder, tracking={'wandb': 'online'}), dict)\n"
    "for epoch in range(1, 4):\n"
    "    tracker.log({'epoch': epoch, 'train/loss': 1 / epoch}, epoch)\n"
    "os.kill(os.getpid(), 9)\n"
)


@pytest.mark.slow
def test_a_run_killed_in_an_upload_is_one_run_with_each_row_once(server: StandIn, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")} | SUBPROCESS
    own = {"PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests'}"} | environment(server, tmp_path)
    server.hanging = 5.0
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=clean | own, check=False)
    server.hanging = 0.0
    tracker = tracker_of(tmp_path)
    for epoch in (4, 5):
        tracker.log(row(epoch), epoch)
    tracker.finish()
    ((_, kept),) = server.runs.items()
    assert [one["_step"] for one in kept.history] == [1, 2, 3, 4, 5]
    assert [one["epoch"] for one in kept.history] == [1, 2, 3, 4, 5]
