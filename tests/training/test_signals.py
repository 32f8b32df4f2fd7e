"""A real Ctrl-C and a real kill, sent to `vqa train` in a process of its own; both runs go on exactly."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.training import SUBPROCESS, make_world, values

from vqa.experiment import read_experiment
from vqa.training.run_folder import RunFolder, load_state, read_metrics
from vqa.training.train import train

PLAN = {"epochs": 4, "batch_size": 1}  # some 300 steps an epoch, so that a signal arrives in the middle of one


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def numbers(folder: RunFolder) -> list[dict[str, Any]]:
    measured = ("seconds", "questions_per_second", "data_wait", "memory_gib")
    times = {*measured, *(f"step/{name}" for name in measured)}
    return [{key: value for key, value in row.items() if key not in times} for row in read_metrics(folder.metrics)]


@pytest.fixture(scope="module")
def uninterrupted(world: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    path = tmp_path_factory.mktemp("whole") / "e.yaml"
    path.write_text(yaml.safe_dump(values(world, path.parent, training=PLAN)), encoding="utf-8")
    return train(read_experiment(path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_a_signal_and_then_resume_equals_uninterrupted(
    world: Path, tmp_path: Path, uninterrupted: RunFolder, number: signal.Signals
) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(values(world, tmp_path, training=PLAN)), encoding="utf-8")
    plan = read_experiment(path)
    folder = RunFolder(plan.folder)
    process = subprocess.Popen(
        [sys.executable, "-m", "vqa", "train", str(path)], env=os.environ | SUBPROCESS,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not folder.state.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130, said
        assert "stopped" in said and f"go on with: vqa train {path} --resume" in said
        assert load_state(folder.state)["progress"]["epoch"] >= 1
    assert not folder.finished.exists()

    train(plan, resume=True)
    assert folder.model.read_bytes() == uninterrupted.model.read_bytes()
    assert numbers(folder) == numbers(uninterrupted)
    last, whole = (load_state(run.state)["model"] for run in (folder, uninterrupted))
    torch.testing.assert_close(last, whole, rtol=0, atol=0)
