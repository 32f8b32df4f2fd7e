"""An ablation in its own run: its table value by value, its plot, its group."""

import json
import shutil
from pathlib import Path

import pytest
import wandb
from helpers.grids import FUSIONS, write_grid
from helpers.training import make_world
from helpers.wandb_parts import finished_parts

from vqa.experiment import TrackingSection
from vqa.studies.ablation import ablate
from vqa.training.tracking.ablation import ablation_media, track_ablation
from vqa.training.tracking.protocol import MediaTable
from vqa.training.tracking.wandb_files import wandb_records

CELLS = {
    "product": {
        "open-ended": {"mean": 50.0, "std": 1.0, "runs": [49.0, 51.0]},
        "multiple-choice": {"mean": 55.0, "std": 0.5, "runs": [54.5, 55.5]},
    },
    "attention": {"open-ended": {"mean": 52.5, "std": None, "runs": [52.5]}},
}
SUMMARY = {"name": "fusion", "seeds": [0, 1], "data": "vqa_v2 val2014", "protocol": "2021", "cells": CELLS}


def test_the_table_has_every_number() -> None:
    media = ablation_media(SUMMARY)
    table = media["ablation/table"]
    assert isinstance(table, MediaTable)
    names = [
        f"{figure}{more}" for figure in ("open-ended", "multiple-choice") for more in ("", ": deviation", ": runs")
    ]
    assert table.columns == ("cell", *names)
    assert table.rows == (
        ("product", 50.0, 1.0, "49.00, 51.00", 55.0, 0.5, "54.50, 55.50"),
        ("attention", 52.5, None, "52.50", None, None, None),
    )
    plot = media["ablation/plot"]
    assert not isinstance(plot, MediaTable) and plot.size[0] == 800 and len(plot.getcolors(1 << 20) or []) > 10


def test_an_ablation_is_one_run_of_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_RUN_ID", "agents9")  # of a trial, which the ablation is not
    section = TrackingSection(wandb="offline")
    for _ in range(2):
        track_ablation(tmp_path, section, SUMMARY)
    identity = json.loads((tmp_path / "tracking.json").read_text())["wandb_id"]
    records = [record for part in finished_parts(tmp_path) for record in part]
    runs = [record.run for record in records if record.HasField("run")]
    assert {(run.run_id, run.display_name, run.run_group, run.job_type) for run in runs} == {
        (identity, "fusion", "fusion", "ablation")
    } and identity != "agents9"
    summary = {item.key: item.value_json for record in records for item in record.summary.update}
    assert json.loads(summary["ablation/product/open-ended"]) == 50.0
    assert json.loads(summary["ablation/attention/open-ended"]) == 52.5
    shown = {item.nested_key[0] for record in records for item in record.history.item if item.nested_key}
    assert {"ablation/table", "ablation/plot"} <= shown


def test_an_ablation_that_is_not_tracked_leaves_nothing(tmp_path: Path) -> None:
    track_ablation(tmp_path, TrackingSection(), SUMMARY)
    assert list(tmp_path.iterdir()) == []


def test_vqa_ablate_shows_its_table_once_in_the_group_of_its_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    folder = write_grid(make_world(tmp_path), tmp_path / "here", fusions=FUSIONS[:2], seeds=[0], epochs=1)
    wandb.setup()  # its own process starts here, and the runs' folders are relative to another place
    monkeypatch.chdir(folder)
    ablate(Path("grid.yaml"))
    assert not Path("runs/grid/tracking.json").exists()  # nothing is tracked
    shutil.rmtree("runs")
    tracked = ["tracking={wandb: offline, examples: 0}"]
    ablate(Path("grid.yaml"), tracked)
    ablate(Path("grid.yaml"), tracked)  # has nothing to do, and nothing to show
    (records,) = finished_parts(Path("runs/grid"))
    found = {item.key: json.loads(item.value_json) for record in records for item in record.summary.update}
    numbers = json.loads(Path("runs/grid/ablation.json").read_text())["cells"]
    assert {label: found[f"ablation/{label}/open-ended"] for label in numbers} == {
        label: cell["open-ended"]["mean"] for label, cell in numbers.items()
    }
    shown = {item.nested_key[0] for record in records for item in record.history.item if item.nested_key}
    assert {"ablation/table", "ablation/plot"} <= shown
    groups = {
        (record.run.run_group, record.run.job_type)
        for path in Path("runs").rglob("offline-run-*/*.wandb") for record in wandb_records(path)
        if record.HasField("run")
    }  # fmt: skip
    assert groups == {("grid", "ablation"), ("grid", "train")}
    Path("runs/grid/tracking.json").write_text("damaged")
    assert ablate(Path("grid.yaml"), tracked)  # which is said, and stops nothing
