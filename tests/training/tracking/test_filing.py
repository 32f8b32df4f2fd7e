"""Under which id, project and group a run is filed: the environment first, then the experiment; and sweeps' agents."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.recipes import EXPERIMENT_FILES
from helpers.training import PROJECT, SUBPROCESS, experiment

from vqa.errors import InputError
from vqa.experiment import read_experiment
from vqa.training.tracking.identity import read_tracking, tracked_run
from vqa.training.tracking.wandb_files import wandb_records
from vqa.training.tracking.wandb_tracker import filed

NAMES = (
    "PROJECT", "ENTITY", "RUN_GROUP", "TAGS", "NOTES", "NAME", "JOB_TYPE", "MODE", "RUN_ID", "SWEEP_ID",
    "SWEEP_PARAM_PATH",
)  # fmt: skip


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(f"WANDB_{name}", raising=False)


def filed_run(folder: Path, **changes: Any) -> dict[str, Any]:
    tracking, resumed = read_tracking(folder)
    return filed(tracked_run(folder, experiment(folder, folder, **changes), tracking, resumed=resumed, training=True))


def test_the_experiment_files_a_run_and_nothing_else_does(tmp_path: Path) -> None:
    found = filed_run(tmp_path)
    assert found.pop("id") == json.loads((tmp_path / "tracking.json").read_text())["wandb_id"]
    assert found == {
        "project": "vqa", "entity": None, "group": None, "tags": [], "notes": None, "name": "tiny/0",
        "job_type": "train",
    }  # fmt: skip
    section = {"project": "p", "entity": "e", "group": "g", "tags": ["t"], "notes": "n"}
    assert filed_run(tmp_path, tracking=section).items() >= section.items()


def test_the_environment_goes_before_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = {"project": "p", "entity": "e", "group": "g", "tags": ["t"], "notes": "n"}
    wanted = {
        "PROJECT": "mine", "ENTITY": "us", "RUN_GROUP": "today", "NOTES": "because", "NAME": "called",
        "JOB_TYPE": "debug",
    }  # fmt: skip
    for name, value in wanted.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_TAGS", "one, two")
    found = filed_run(tmp_path, tracking=section)
    keys = ("project", "entity", "group", "notes", "name", "job_type", "tags")
    assert [found[key] for key in keys] == [*wanted.values(), ["one", "two"]]


def test_cells_of_an_ablation_are_one_group(tmp_path: Path) -> None:
    groups = [filed_run(tmp_path, name=name)["group"] for name in ("fusion/product", "a/b/cell", "alone")]
    assert groups == ["fusion", "a/b", None]
    trials = ("fusion/product/sweep-3f2a/9bd1", "alone/sweep-3f2a/9bd1")
    assert [filed_run(tmp_path, name=name)["group"] for name in trials] == ["fusion", None]
    assert filed_run(tmp_path, name="fusion/product", tracking={"group": "own"})["group"] == "own"


@pytest.mark.parametrize("path", EXPERIMENT_FILES, ids=lambda path: path.stem)
def test_no_recipe_files_the_runs_of_its_copies(path: Path) -> None:
    tracking = read_experiment(path).tracking
    assert tracking.group is None and tracking.tags == [] and tracking.entity is None and tracking.notes is None


def test_an_id_of_the_environment_is_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "agents1")
    ids = [read_tracking(tmp_path / name)[0].wandb_id for name in ("one", "two", "one")]
    assert ids[0] == ids[2] == "agents1" != ids[1]
    monkeypatch.setenv("WANDB_RUN_ID", "agents2")
    assert read_tracking(tmp_path / "one") == (read_tracking(tmp_path / "one")[0], True)
    assert read_tracking(tmp_path / "one")[0].wandb_id == "agents1"
    monkeypatch.setenv("WANDB_RUN_ID", "no/id")
    with pytest.raises(InputError, match="WANDB_RUN_ID in the environment"):
        read_tracking(tmp_path / "three")


TRACK = (
    "import sys\n"
    "from pathlib import Path\n"
    "from helpers.training import experiment\n"
    "from vqa.training.tracking.trackers import track_training\n"
    "for name in sys.argv[1:]:\n"
    "    plan = experiment(Path(), Path(), name=name, tracking={'wandb': 'offline', 'project': 'own'})\n"
    "    tracker = track_training(Path(name), plan, dict)\n"
    "    tracker.log({'epoch': 1}, 1)\n"
    "    tracker.finish()\n"
)


@pytest.mark.slow
def test_the_real_wandb_takes_an_agents_id_for_its_trial_alone(tmp_path: Path) -> None:
    """Two processes of an agent: a trial and another run beside it; then that other run resumed, and a trial."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")} | SUBPROCESS
    own = {"PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests'}", "WANDB_SWEEP_ID": "sweep1", "WANDB_PROJECT": "sweeps"}
    for trial, folders in (("trial1", ["one", "two"]), ("trial2", ["two", "three"])):
        for name in folders:
            (tmp_path / name).mkdir(exist_ok=True)
        subprocess.run(
            [sys.executable, "-c", TRACK, *folders], cwd=tmp_path, env=clean | own | {"WANDB_RUN_ID": trial}, check=True
        )
    found = {}
    for name in ("one", "two", "three"):
        parts = [wandb_records(path) for path in (tmp_path / name).glob("wandb/offline-run-*/*.wandb")]
        runs = [record.run for part in parts for record in part if record.HasField("run")]
        found[name] = {(run.run_id, run.sweep_id, run.project) for run in runs}
    kept = json.loads((tmp_path / "two/tracking.json").read_text())["wandb_id"]
    assert kept not in ("trial1", "trial2")
    assert found == {
        "one": {("trial1", "sweep1", "sweeps")}, "two": {(kept, "", "sweeps")},
        "three": {("trial2", "sweep1", "sweeps")},
    }  # fmt: skip
    assert json.loads((tmp_path / "three/tracking.json").read_text())["wandb_id"] == "trial2"
