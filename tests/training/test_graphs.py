"""Recorded steps, with a recorder that calls the step again: a CPU shows all but how a GPU records.

A run with recorded steps must be the run without them, whichever of its batches are recorded.
"""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.training import STACKED, assert_same_run, experiment, interrupted_after, make_world, timeless_metrics
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vqa.errors import InputError, InterruptedRunError
from vqa.experiment import Experiment, OptimizerSection, PartSection
from vqa.models import Image, Target
from vqa.runtime.device import Machine
from vqa.runtime.distributed import Group
from vqa.training.graphs import (
    WARM_UP,
    Counted,
    Recorded,
    Step,
    StepGraphs,
    copy_into,
    obstacle,
    one_length,
    static_inputs,
)
from vqa.training.inputs.prepare import prepare
from vqa.training.optimise import make_optimizer, set_learning_rates
from vqa.training.run import Run, build, take
from vqa.training.run_folder import RunFolder, load_state
from vqa.training.step import Inputs
from vqa.training.train import train_runs

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


class Recorder:
    """Records by remembering the step, and plays by taking it; the numbers that it leaves lie in one place."""

    def __init__(self, fails_at: int = -1) -> None:
        self.made, self.played, self.fails_at = 0, 0, fails_at

    def __call__(self, step: Step) -> Recorded:
        if self.made == self.fails_at:
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
        self.made += 1
        counted = Counted(torch.tensor(math.nan), torch.tensor(math.nan, dtype=torch.float64))

        def play() -> None:
            self.played += 1
            for there, here in zip(counted, step(), strict=True):
                there.copy_(here)

        return Recorded(play, counted)


def trained(plan: Experiment, recorder: Recorder | None, *, resume: bool = False) -> tuple[Run, RunFolder]:
    run = build(plan, prepare(plan))
    if recorder is not None:
        run.optimizer = make_optimizer(plan.training.optimizer, run.model, recorded=True)
        run.graphs = StepGraphs(lambda inputs: take(run, inputs), recorder, plan.training.batch_size)
    train_runs([run], resume=resume, command="the same command")
    if run.failure:
        raise run.failure
    return run, RunFolder(plan.folder)


SETTINGS: dict[str, dict[str, Any]] = {
    "attention": {"training": {"clip_norm": 0.5, "schedule": {"name": "cosine", "warmup": 0.5}}},
    "decay of parts": {
        "fusion": {"name": "product", "fusion_dim": 16},
        "loss": {"name": "sampled_cross_entropy"},
        "training": {
            "optimizer": {"name": "adamw", "weight_decay": 0.1, "parts": {"classifier": {"learning_rate": 0.03}}},
            "schedule": {"name": "exponential", "factor": 0.99},
        },
    },
    "batch normalisation": {"fusion": {"name": "film", "blocks": 1, "hidden_dim": 8, "fusion_dim": 8}},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_with_recorded_steps_is_the_run_without(world: Path, tmp_path: Path, name: str) -> None:
    """With dropout. The rate is a float32 beside the weights and no Python number, so last digits differ."""
    settings = {"training": {}, "fusion": STACKED} | SETTINGS[name]
    settings["training"] = {"epochs": 2, "batch_size": 16} | settings["training"]
    recorder = Recorder()
    run, with_graphs = trained(experiment(world, tmp_path / "graphs", **settings), recorder)
    _, without = trained(experiment(world, tmp_path / "plain", **settings), None)
    assert run.graphs is not None and len(run.graphs.lengths) == recorder.made >= 2
    assert run.state.step > recorder.played > run.state.step / 4
    states = [load_state(folder.state)["model"] for folder in (with_graphs, without)]
    torch.testing.assert_close(states[0], states[1], rtol=1e-4, atol=1e-6)
    for row, wanted in zip(timeless_metrics(with_graphs), timeless_metrics(without), strict=True):
        assert row["learning_rate"] == wanted["learning_rate"]  # exact in the records
        assert row["train/loss"] == pytest.approx(wanted["train/loss"], rel=1e-6)


def test_what_cannot_be_recorded_ends_the_run_and_says_how_to_go_without(world: Path, tmp_path: Path) -> None:
    """CUDA is left in the midst of a recording, where nothing else can be computed."""
    settings = {"training": {"epochs": 2, "batch_size": 8}}
    with pytest.raises(InputError, match=r"operation not permitted.*; begin anew with training\.cuda_graphs=off"):
        trained(experiment(world, tmp_path / "graphs", **settings), Recorder(fails_at=1))


@pytest.mark.parametrize(("before", "after"), [(True, True), (True, False), (False, True)])
def test_a_run_goes_on_with_recorded_steps_or_without(world: Path, tmp_path: Path, before: bool, after: bool) -> None:
    settings = {"training": {"epochs": 2, "batch_size": 8}}
    plan = experiment(world, tmp_path / "stopped", **settings)
    with pytest.raises(InterruptedRunError), interrupted_after(30):
        trained(plan, Recorder() if before else None)
    run, resumed = trained(plan, Recorder() if after else None, resume=True)
    _, whole = trained(experiment(world, tmp_path / "whole", **settings), Recorder())
    assert isinstance(run.optimizer.param_groups[0]["lr"], torch.Tensor) == after
    if before and after:
        assert_same_run(resumed, whole)
    states = [load_state(folder.state)["model"] for folder in (resumed, whole)]
    torch.testing.assert_close(states[0], states[1], rtol=1e-4, atol=1e-6)


def batch(lengths: list[int], longest: int, value: int = 0) -> Inputs:
    count = len(lengths)
    column_BK = torch.full((count, 2), value)
    target = Target(column_BK[:, 0], column_BK, column_BK.float(), column_BK.float())
    tokens_BT = torch.full((count, longest), value)
    image = Image(torch.full((count, 1, 3), float(value)), torch.full((count,), value), None, None)
    return Inputs(image, tokens_BT, torch.tensor(lengths), target, target, count, 1)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 2), st.integers(1, 6))
def test_only_whole_batches_of_one_length_are_recorded(lengths: list[int], padding: int, batch_size: int) -> None:
    found = one_length(batch(lengths, max(lengths) + padding), batch_size)
    fits = len(set(lengths)) == 1 and padding == 0 and len(lengths) == batch_size
    assert found == (lengths[0] if fits else None)


def test_a_batch_is_copied_to_where_the_recorded_step_reads() -> None:
    first = static_inputs(batch([2, 2], 2), None)
    other = static_inputs(batch([3, 3], 3), first)
    assert other.image is first.image and other.target is first.target and other.tokens_BT.shape == (2, 3)
    given_first = batch([2, 2], 2, value=7)
    copy_into(first, given_first)
    held = (*first.image, first.tokens_BT, *first.target)
    given_held = (*given_first.image, given_first.tokens_BT, *given_first.target)
    assert isinstance(first.image, Image) and first.image.mask_IR is None and first.image.row_B is not None
    for there, here in zip(held, given_held, strict=True):
        if there is None or here is None:
            continue
        assert torch.equal(there, here) and there.data_ptr() != here.data_ptr()


def test_a_length_is_recorded_after_its_warm_up_and_its_results_are_the_callers() -> None:
    """A recorder that really does not take the step when it records, as a GPU's."""
    taken: list[int] = []

    def take_one(inputs: Inputs) -> Counted:
        value = int(inputs.tokens_BT[0, 0])
        taken.append(value)
        return Counted(torch.tensor(float(value)), torch.tensor(float(-value)))

    recorder = Recorder()
    graphs = StepGraphs(take_one, recorder, 2)
    found = [graphs.step(batch([2, 2], 2, value)) for value in range(6)]
    assert taken == list(range(6)) and recorder.made == 1 and recorder.played == 6 - WARM_UP
    assert [counted.loss.item() for counted in found] == list(range(6))  # not all the last one's


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_rate_beside_the_weights_moves_them_as_a_number_does(name: Any) -> None:
    section = OptimizerSection(name=name, learning_rate=0.01, parts={"1": PartSection(learning_rate=0.03)})
    models = [nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [make_optimizer(section, model, recorded=bool(place)) for place, model in enumerate(models)]
    rates = [group["lr"] for group in optimizers[1].param_groups]
    for number in range(4):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(number))
        for model, optimizer in zip(models, optimizers, strict=True):
            set_learning_rates(optimizer, section, 1 / (1 + number))
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    for group, rate, own in zip(optimizers[1].param_groups, rates, (0.01, 0.03), strict=True):
        assert group["lr"] is rate and rate.item() == pytest.approx(own / 4)  # where a recorded step reads it
    torch.testing.assert_close(models[1].state_dict(), models[0].state_dict(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "where", "said"),
    [
        ({}, {}, None),
        ({"training": {"cuda_graphs": "off"}}, {}, "off"),
        ({}, {"device": CPU}, "no GPU"),
        ({}, {"group": Group(0, 2)}, "several processes"),
        ({}, {"among_others": True}, "several models at once"),
        ({}, {"residency": "host"}, "features in host memory"),
        ({"training": {"compile": True}}, {}, "training.compile"),
        ({"training": {"optimizer": {"name": "sgd"}}}, {}, "optimizer sgd"),
        ({"fusion": {"name": "helpers.outside.fusions:Mine"}}, {}, "parts from outside (fusion)"),
        ({"question_encoder": {"name": "hf:some/model"}}, {}, "a pretrained question encoder"),
    ],
)
def test_why_steps_are_not_recorded(
    world: Path, tmp_path: Path, changes: dict[str, Any], where: dict[str, Any], said: str | None
) -> None:
    plan = experiment(world, tmp_path, training={"cuda_graphs": "auto"})
    for key, value in changes.items():
        kept = getattr(plan, key)
        if isinstance(kept, dict):
            plan = plan.model_copy(update={key: value})
        else:
            changed = {name: OptimizerSection(**one) if isinstance(one, dict) else one for name, one in value.items()}
            plan = plan.model_copy(update={key: kept.model_copy(update=changed)})
    facts: dict[str, Any] = {"device": GPU, "group": Group(), "residency": "device", "among_others": False} | where
    features: Any = SimpleNamespace(residency=facts["residency"])
    machine = Machine(facts["device"], False, facts["group"])
    assert obstacle(plan, machine, features, among_others=facts["among_others"]) == said
