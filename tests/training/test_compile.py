"""A compiled head is the same function with the same weights' names."""

from pathlib import Path

import pytest
import torch
from helpers.training import assert_same_run, experiment, make_world
from safetensors.torch import load_file

from vqa.training import step
from vqa.training.inputs.prepare import prepare
from vqa.training.model import make_model
from vqa.training.run import build, epoch_batches
from vqa.training.run_folder import RunFolder, read_metrics
from vqa.training.step import compile_head, stream
from vqa.training.together import train_together
from vqa.training.train import train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def cheap_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "COMPILER", "aot_eager")  # traces and differentiates as inductor, but writes no C++


def test_logits_and_gradients_are_those_of_the_plain_head(world: Path, tmp_path: Path) -> None:
    run = build(experiment(world, tmp_path), prepare(experiment(world, tmp_path)))
    model = run.model.eval()  # without dropout's masks
    names = list(model.state_dict())

    def results() -> list[list[torch.Tensor]]:
        found = []
        for inputs in stream(run.data, epoch_batches(run)[:3]):
            model.zero_grad()
            logits_BA = model(*inputs[:3]).logits_BA
            run.loss(logits_BA, inputs.target).backward()
            found.append(
                [logits_BA.detach(), *(weight.grad for weight in model.parameters() if weight.grad is not None)]
            )
        return found

    plain = results()
    compile_head(model)
    torch.testing.assert_close(results(), plain)
    assert list(model.state_dict()) == names


def test_a_run_with_a_compiled_head_trains_and_its_weights_are_read_back(world: Path, tmp_path: Path) -> None:
    plan = experiment(world, tmp_path, training={"compile": True, "epochs": 3})
    folder = train(plan)
    losses = [row["train/loss"] for row in read_metrics(folder.metrics)]
    assert losses[-1] < losses[0]
    together = experiment(world, tmp_path / "together", training=plan.training.model_dump())
    assert train_together([together], "again") == {}
    assert_same_run(RunFolder(together.folder), folder)  # whose masks are those of a compiled head
    prepared = prepare(plan)
    make_model(plan, prepared.words, prepared.answers, 4, 6).load_state_dict(load_file(folder.model))
