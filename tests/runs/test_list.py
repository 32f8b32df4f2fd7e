"""`vqa runs`: every run folder is a row with its state, and a damaged one says so; nothing is written."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from helpers.training import experiment, folder_bytes, make_world

from vqa.errors import InputError
from vqa.locks import Lease, lock
from vqa.runs.evaluate import evaluate_run
from vqa.runs.list import RunRow, find_runs, list_runs
from vqa.studies.summary import write_failure
from vqa.training.run_folder import RunFolder, read_metrics
from vqa.training.train import train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run that is done and evaluated, and copies of it in other states."""
    world = make_world(tmp_path_factory.mktemp("world"))
    done = train(experiment(world, world / "runs")).path
    evaluate_run(done, report=False)
    for name, gone in {
        "died": ["finished.json"], "new": ["finished.json", "state.pt", "metrics.jsonl", "model.safetensors"],
        "nothing": ["experiment.yaml"], "bad_metrics": [],
    }.items():  # fmt: skip
        shutil.copytree(done, world / "runs" / name / "0")
        for file in gone:
            (world / "runs" / name / "0" / file).unlink()
    metrics = world / "runs/bad_metrics/0/metrics.jsonl"
    metrics.write_text("garbage\n" + metrics.read_text())
    return world / "runs"


def test_each_folder_has_its_state_and_numbers(runs: Path) -> None:
    before = folder_bytes(runs)
    rows = {Path(row.path).parent.name: row for row in find_runs(runs)}
    assert {name: row.state for name, row in rows.items()} == {
        "tiny": "done", "died": "died", "new": "new", "nothing": "damaged", "bad_metrics": "damaged",
    }  # fmt: skip
    done = rows["tiny"]
    best = max(read_metrics(runs / "tiny/0/metrics.jsonl"), key=lambda row: row["val/open_ended/overall"])
    evaluation = json.loads((runs / "tiny/0/evaluation_val.json").read_text())
    assert (done.open_ended, done.kept_epoch) == (best["val/open_ended/overall"], best["epoch"])
    assert done.evaluated == {"val": evaluation["accuracy"]["open_ended"]["overall"]}
    assert (done.epochs, done.planned, done.protocol, done.seed) == (2, 2, "2021", 0) and done.seconds
    assert "experiment.yaml" in str(rows["nothing"].damage) and "line 1 is no JSON" in str(rows["bad_metrics"].damage)
    assert folder_bytes(runs) == before


def test_a_run_whose_lock_is_held_is_running(runs: Path) -> None:
    with lock(runs / "died/0/.lock"):
        states = {Path(row.path).parent.name: row.state for row in find_runs(runs)}
    assert states["died"] == "running" and states["tiny"] == "done"


def test_a_run_that_a_worker_elsewhere_has_is_running_until_it_is_silent(runs: Path) -> None:
    lease = runs / "died/0/.lease"
    lease.write_text(json.dumps({"host": "elsewhere", "process": 1}))
    before = folder_bytes(runs)
    assert _row(runs, "died").state == "running" and folder_bytes(runs) == before
    os.utime(lease, (time.time() - 300,) * 2)
    assert _row(runs, "died").state == "died"
    mine = Lease(lease)
    assert mine.take() and _row(runs, "died").state == "running"
    mine.release()
    dead = json.dumps(mine.owner | {"process": 2**22 + 1})  # of this machine, and there is no such process
    lease.write_text(dead)
    assert _row(runs, "died").state == "died"
    lease.unlink()


def test_a_run_that_failed_in_an_ablation_says_why(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_failure(RunFolder(runs / "died/0"), InputError("loss not finite"))
    row = _row(runs, "died")
    assert (row.state, row.damage, row.shown_name) == ("failed", "loss not finite", "tiny/0")
    list_runs(runs, states=["failed"])
    assert "loss not finite" in capsys.readouterr().out
    (runs / "died/0/failed.json").unlink()


def test_a_run_without_validation_has_its_epochs_and_the_last_is_kept(runs: Path) -> None:
    world = runs.parent
    keep = {"training": {"keep": "last"}, "tracking": {"every": 1}}
    none = train(experiment(world, world / "more", name="none", data={"val": None}, **keep)).path
    beside = train(experiment(world, world / "more", name="beside", **keep)).path
    row, last = _row(none.parent, "none"), read_metrics(beside / "metrics.jsonl")[-1]
    assert (row.state, row.epochs, row.kept_epoch, row.open_ended, row.protocol) == ("done", 2, 2, None, None)
    row = _row(beside.parent, "beside")
    assert (row.epochs, row.kept_epoch, row.open_ended) == (2, 2, last["val/open_ended/overall"])


def _row(runs: Path, name: str) -> RunRow:
    return next(row for row in find_runs(runs) if Path(row.path).parent.name == name)


def test_rows_are_chosen_sorted_printed_and_written(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [row.state for row in list_runs(runs, sort="state", states=["died", "done"])] == ["died", "done"]
    assert len(list_runs(runs, name="tin*")) == 4 and len(list_runs(runs, name="*/1")) == 0
    assert "no runs" in capsys.readouterr().out
    rows = list_runs(runs, sort="val", json_file=tmp_path / "runs.json")
    shown = capsys.readouterr().out
    assert "protocol 2021" in shown and "line 1 is no JSON" in shown
    assert [row["path"] for row in json.loads((tmp_path / "runs.json").read_text())] == [row.path for row in rows]
    with pytest.raises(InputError, match="did you mean 'done'"):
        list_runs(runs, states=["don"])
    with pytest.raises(InputError, match="no such folder"):
        list_runs(runs / "nowhere")
