"""`training.recurrent_precision`: said, recorded, and the same when the run is loaded."""

from pathlib import Path

import pytest
import torch
from helpers.training import experiment, make_world
from torch import nn

from vqa.runs.load import load_run
from vqa.training.train import train


def test_what_recurrent_layers_compute_in_is_printed_recorded_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = {"batch_size": 16, "epochs": 1, "device": "cpu", "precision": "bfloat16"}
    plan = experiment(make_world(tmp_path), tmp_path, training=training | {"recurrent_precision": "float32"})
    said = "CPU, bfloat16 where it helps, recurrent layers in float32"
    folder = train(plan)
    assert said in " ".join(capsys.readouterr().out.split())
    assert f"machine: {said}" in (folder.path / "experiment.yaml").read_text("utf-8")
    run = load_run(folder.path)
    kinds = {module.number_type for module in run.model.modules() if isinstance(module, nn.RNNBase)}
    assert kinds == {torch.float32} and str(run.machine) == said
