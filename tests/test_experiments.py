"""Every file under experiments/ takes a step on a drawn data set, with its own model, loss and optimiser."""

from pathlib import Path
from typing import Any

import pytest
from helpers_training import PROJECT, make_world

from vqa.ablation import read_ablation
from vqa.training.checkpoint import read_metrics
from vqa.training.experiment import check_experiment, override, read_yaml
from vqa.training.train import train

FOLDERS = ("experiments", "experiments/demo")
FILES = sorted(path for folder in FOLDERS for path in (PROJECT / folder).glob("*.yaml"))
ABLATIONS = sorted((PROJECT / "experiments/ablations").glob("*.yaml"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def takes_one_step(content: dict[str, Any], world: Path, runs: Path) -> None:
    changes = [
        f"runs={runs}",
        f"data={{format: vqa_v2, root: {world / 'data'}}}",
        f"features={{cache: {world / 'cache.h5'}, standardise: {content['features'].get('standardise', False)}}}",
        "training.epochs=1",
        "training.batch_size=1000",
        "training.device=cpu",
        "training.precision=float32",
        "tracking={}",
    ]
    rows = read_metrics(train(check_experiment(override(content, changes), "test")).metrics)
    assert [row["step"] for row in rows] == [1]
    assert 0 < rows[0]["train/loss"] < 1000 and 0 <= rows[0]["val/open_ended/overall"] <= 100


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_an_experiment_takes_one_step(path: Path, world: Path, tmp_path: Path) -> None:
    takes_one_step(read_yaml(path), world, tmp_path)


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.name)
def test_every_cell_of_an_ablation_takes_one_step(
    path: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    _, cells = read_ablation(path)
    for cell in cells:
        takes_one_step(cell.experiments[0].resolved(), world, tmp_path)
