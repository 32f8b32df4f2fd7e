"""`--dry-run` shows the file, the model and what it takes, and leaves everything as it is."""

from pathlib import Path

import pytest
import yaml
from helpers.training import experiment, folder_bytes, make_world, values
from typer.testing import CliRunner

import vqa.cli
from vqa.planning.describe import describe
from vqa.planning.dry_run import disk_of
from vqa.training.train import train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_world(tmp_path_factory.mktemp("world"))
    (folder / "e.yaml").write_text(yaml.safe_dump(values(folder, folder / "runs")))
    grid = {"name": "grid", "base": str(folder / "e.yaml"), "grid": {"fusion": ["product", "concat"]}, "seeds": [0, 1]}
    (folder / "a.yaml").write_text(yaml.safe_dump(grid))
    return folder


def test_train_shows_everything_and_trains_nothing(world: Path) -> None:
    before = folder_bytes(world)
    shown = (
        CliRunner().invoke(vqa.cli.app, ["train", str(world / "e.yaml"), "--dry-run", "--training.patience=5"]).output
    )
    assert yaml.safe_load(shown[: shown.index("\ntiny\n")])["training"]["patience"] == 5
    for part in (
        "shapes of a batch",
        "memory in training",
        "steps: ",
        "disk: ",
        "would be begun",
        "warning: training.pat",
    ):
        assert part in shown
    assert folder_bytes(world) == before and not (world / "runs").exists()


def test_an_ablation_shows_every_cell_and_trains_nothing(world: Path) -> None:
    before = folder_bytes(world)
    shown = CliRunner().invoke(vqa.cli.app, ["ablate", str(world / "a.yaml"), "--dry-run"]).output
    assert "fusion.name: concat" in shown and "in 4 run folders" in shown
    assert folder_bytes(world) == before


def test_the_disk_is_what_a_run_takes(world: Path, tmp_path: Path) -> None:
    plan = experiment(world, tmp_path, question_encoder={"hidden_dim": 300}, training={"epochs": 1})
    counted = disk_of(describe(plan))
    folder = train(plan)
    assert folder.model.stat().st_size == pytest.approx(counted.model, rel=0.05)
    assert folder.state.stat().st_size == pytest.approx(counted.state, rel=0.05)
