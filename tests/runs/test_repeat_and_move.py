"""A run is repeated from its own file, to the bit, and evaluated where its data and features were moved to."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml
from helpers.training import assert_same_run, experiment, interrupted_after, make_world, timeless_metrics
from typer.testing import CliRunner

import vqa.cli
from vqa.data.formats import read_dataset
from vqa.errors import InterruptedRunError
from vqa.experiment import read_experiment
from vqa.runs.evaluate import EvaluationOptions
from vqa.runs.repeat import changed_since
from vqa.runs.submit import submit_run
from vqa.training import train as loop
from vqa.training.run_folder import RunFolder
from vqa.training.train import train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_world(tmp_path_factory.mktemp("world"))
    train(experiment(folder, folder / "runs", training={"deterministic": True}))
    return folder


def test_a_run_is_repeated_from_its_own_file(world: Path, tmp_path: Path) -> None:
    own = world / "runs/tiny/0/experiment.yaml"
    same = CliRunner().invoke(vqa.cli.app, ["train", str(own)])
    assert same.exit_code == 0 and "already trained" in same.output
    again = CliRunner().invoke(vqa.cli.app, ["train", str(own), f"--runs={tmp_path}"])
    assert again.exit_code == 0 and "has changed" not in again.output
    assert_same_run(RunFolder(world / "runs/tiny/0"), RunFolder(tmp_path / "tiny/0"))
    first, second = (
        {**read_experiment(path).resolved(), "runs": ""} for path in (own, tmp_path / "tiny/0/experiment.yaml")
    )
    assert first == second


def test_data_that_have_changed_are_named(world: Path, tmp_path: Path) -> None:
    own = tmp_path / "experiment.yaml"
    text = yaml.safe_load((world / "runs/tiny/0/experiment.yaml").read_text())
    name = next(iter(text["recorded"]["data"]))
    text["recorded"]["data"][name] = "0" * 64
    own.write_text(yaml.safe_dump(text))
    assert changed_since(own) == [f"{name}: has changed since {own} was trained, so this run is not the same"]
    assert changed_since(Path("san")) == []


def test_a_run_is_evaluated_where_everything_was_moved(world: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(world / "runs/tiny/0", moved / "run")
    shutil.copytree(world / "data", moved / "set")
    shutil.copy(world / "cache.h5", moved / "features.h5")
    recorded = (moved / "run/experiment.yaml").read_text().replace(str(world), "/gone")
    (moved / "run/experiment.yaml").write_text(recorded)
    arguments = ["evaluate", str(moved / "run"), "--cache", str(moved / "features.h5"), "--data", str(moved / "set")]
    numbers = []
    for call in (["evaluate", str(world / "runs/tiny/0")], arguments):
        ended = CliRunner().invoke(vqa.cli.app, [*call, "--json", str(tmp_path / "numbers.json")])
        assert ended.exit_code == 0, ended.exception
        numbers.append(json.loads((tmp_path / "numbers.json").read_text())["accuracy"])
    assert numbers[0] == numbers[1]

    annotations = next((moved / "set").rglob("*train*annotations*.json"))
    annotations.write_text(annotations.read_text() + " ")
    refused = CliRunner().invoke(vqa.cli.app, arguments)
    assert f"{annotations}: is not the file that the run was trained on" in str(refused.exception)
    annotations.unlink()
    assert "no such file; the run was trained on it as /gone" in str(
        CliRunner().invoke(vqa.cli.app, arguments).exception
    )


def moved(world: Path, run: RunFolder, to: Path) -> list[str]:
    """The run, its data and its features somewhere else, where the old places are gone; what the command is told."""
    shutil.copytree(run.path, to / "run")
    shutil.copytree(world / "data", to / "set")
    shutil.copy(world / "cache.h5", to / "features.h5")
    own = to / "run/experiment.yaml"
    own.write_text(own.read_text().replace(str(world), "/gone"))
    return [str(to / "run"), "--cache", str(to / "features.h5"), "--data", str(to / "set")]


def test_held_out_questions_are_found_again_in_another_place(world: Path, tmp_path: Path) -> None:
    run = train(experiment(world, world / "held", data={"holdout": 0.3}, training={"epochs": 1}))
    numbers = []
    for call in ([str(run.path)], moved(world, run, tmp_path / "elsewhere")):
        ended = CliRunner().invoke(vqa.cli.app, ["evaluate", *call, "--json", str(tmp_path / "numbers.json")])
        assert ended.exit_code == 0, ended.exception
        numbers.append(json.loads((tmp_path / "numbers.json").read_text()))
    assert numbers[0]["accuracy"] == numbers[1]["accuracy"] and numbers[0]["questions"] == numbers[1]["questions"]
    assert 0 < numbers[0]["questions"] < len(read_dataset("vqa_v2", world / "data", "train"))


def test_answers_are_packed_from_another_place(world: Path, tmp_path: Path) -> None:
    run = RunFolder(world / "runs/tiny/0")
    arguments = moved(world, run, tmp_path / "elsewhere")
    (packed,) = submit_run(run.path, options=EvaluationOptions(task="open-ended"))
    here = CliRunner().invoke(vqa.cli.app, ["submit", *arguments, "--task", "open-ended"])
    assert here.exit_code == 0, here.exception
    contents = []
    for path in (packed, tmp_path / "elsewhere/run/submission" / packed.name):
        with zipfile.ZipFile(path) as archive:
            contents.append([archive.read(name) for name in archive.namelist()])
    assert contents[0] == contents[1]
    refused = CliRunner().invoke(vqa.cli.app, ["submit", *arguments[:-1], str(tmp_path), "--task", "open-ended"])
    assert "no such file; the run was trained on it as /gone" in str(refused.exception)


def test_a_run_goes_on_with_another_tracking_section(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of epochs are those of the run that was never stopped; those within an epoch come as often as is asked."""
    monkeypatch.setattr(loop, "READ_EVERY", 1)
    whole = train(experiment(world, tmp_path / "whole", training={"epochs": 3}))
    plan = experiment(world, tmp_path / "part", training={"epochs": 3})
    with interrupted_after(8), pytest.raises(InterruptedRunError):
        train(plan)
    other = plan.model_copy(update={"tracking": plan.tracking.model_copy(update={"every": 1, "tags": ["again"]})})
    gone_on = train(other, resume=True)
    assert gone_on.model.read_bytes() == whole.model.read_bytes()
    rows = [timeless_metrics(folder) for folder in (whole, gone_on)]
    epochs = [[row for row in one if "epoch" in row] for one in rows]
    assert epochs[0] == epochs[1] and len(epochs[0]) == 3
    assert len(rows[1]) > len(rows[0])
