"""A run that is killed again and again is one run in every tracker: each row is there once, with its values."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.training import PROJECT, SUBPROCESS, TIMES, make_world

from vqa.training.run_folder import RunFolder, read_metrics
from vqa.training.tracking.wandb_files import wandb_records

KILLS = 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_a_run_killed_twenty_times_is_one_run_with_each_row_once(tmp_path: Path, seed: int) -> None:
    make_world(tmp_path / "world")
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "TRACKIO"))
    } | SUBPROCESS
    own = {
        "HOME": str(tmp_path), "TRACKIO_DIR": str(tmp_path / "trackio"),
        "PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests'}",
    }  # fmt: skip
    arguments = [str(tmp_path / "world"), str(tmp_path / "runs"), str(KILLS), str(seed)]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "killed_run.py"), *arguments], env=clean | own, check=True,
        timeout=1200, capture_output=True, text=True,
    )  # fmt: skip
    assert f"killed {KILLS} times" in done.stdout
    folder = RunFolder(tmp_path / "runs/tiny/0")
    rows = {row.pop("step"): row for row in read_metrics(folder.metrics)}
    assert len(rows) == 8 * 3 and sum("epoch" in row for row in rows.values()) == 8

    identity, sent = json.loads(folder.tracking.read_text())["wandb_id"], []
    for path in sorted(folder.path.glob("wandb/offline-run-*/*.wandb")):
        for record in wandb_records(path):
            values = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
            }
            sent += [values] if values else []
            assert not record.HasField("run") or record.run.run_id == identity
    steps = [row.pop("_step") for row in sent]
    assert sorted(steps) == sorted(rows)
    in_wandb = dict(zip(steps, sent, strict=True))
    with sqlite3.connect(tmp_path / "trackio/vqa.db") as base:
        stored = base.execute("select step, metrics from metrics").fetchall()
    every = [(step, json.loads(text)) for step, text in stored]
    kept = [(step, row) for step, row in every if not any(name.startswith("summary/") for name in row)]
    assert sorted(step for step, _ in kept) == sorted(rows)
    for found in (in_wandb, dict(kept)):
        for step, row in rows.items():  # a step that was taken again took another time
            assert {name: found[step][name] for name in row if name not in TIMES} == {
                name: value for name, value in row.items() if name not in TIMES
            }
