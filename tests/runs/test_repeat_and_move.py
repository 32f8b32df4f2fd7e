"""A run is repeated from its own file, to the bit, and evaluated where its data and features were moved to."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.training import assert_same_run, experiment, make_world
from typer.testing import CliRunner

import vqa.cli
from vqa.experiment import read_experiment
from vqa.runs.repeat import changed_since
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
