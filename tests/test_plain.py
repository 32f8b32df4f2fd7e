"""The plain example trains as `vqa train` does: the same losses, step for step, from the same seed."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from helpers.training import PROJECT, experiment, make_world

from vqa.training.run_folder import read_metrics
from vqa.training.train import train

PLAIN = PROJECT / "examples" / "plain.py"


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    spec = importlib.util.spec_from_file_location("plain", PLAIN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_losses_are_those_of_vqa_train(
    plain: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_world(tmp_path)
    same = experiment(
        world, tmp_path / "runs",
        question_encoder={"name": "lstm", "embedding_dim": 8, "hidden_dim": 9, "layers": 1, "sentence_dim": 12},
        fusion={"name": "stacked_attention", "hops": 2, "attention_dim": 10, "dropout": 0.0},
        classifier={"dropout": 0.0},
        loss={"name": "cross_entropy"},
        seed=3,
        training={"epochs": 3, "batch_size": 50, "optimizer": {"learning_rate": 0.01}},
    )  # fmt: skip
    rows = read_metrics(train(same).metrics)
    losses = plain.main(
        world / "data", world / "cache.h5", seed=3, epochs=3, batch_size=50, learning_rate=0.01,
        widths=(8, 9, 12, 10), dropout=0.0,
    )  # fmt: skip
    assert losses == pytest.approx([row["train/loss"] for row in rows], rel=1e-5)
    said = capsys.readouterr().out.splitlines()[-3:]
    assert [f"val {row['val/open_ended/overall']:.2f}%" in line for row, line in zip(rows, said, strict=True)] == [
        True
    ] * 3


def test_one_sitting_and_public_names_only() -> None:
    text = PLAIN.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert "from vqa" not in text and "import vqa." not in text
