"""What a run goes on from, changed in many ways: the same end as untouched, or one sentence that names the file.

Types, shapes and ranges are changed, keys dropped and added, numbers made NaN. What cannot be told from another run's
number, such as a weight that moved a little, is left out.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.damage import ODD, PLAIN, KeptRun, at, changed, drop, places, put, tensor_changes
from helpers.training import experiment, folder_bytes, interrupted_after, make_world, timeless_metrics
from safetensors.torch import load_file, save_file

from vqa.errors import InputError, InterruptedRunError
from vqa.progress import quietly
from vqa.training import train as loop
from vqa.training.inputs.prepare import prepare
from vqa.training.run_folder import RunFolder, load_state
from vqa.training.train import train

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {"name": "adam", "learning_rate": 0.01, "parts": {"classifier": {"learning_rate": 0.02}}},
    "adamax": {"name": "adamax", "learning_rate": 0.01},
    "rmsprop": {"name": "rmsprop", "learning_rate": 0.01, "momentum": 0.5},
    "sgd": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9},
    "plain sgd": {"name": "sgd", "learning_rate": 0.01},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@dataclass
class Stopped(KeptRun):
    """A run that was stopped in the middle of its second epoch, and what it comes to when it goes on."""

    weights: bytes
    rows: list[dict[str, Any]]

    def check(self, file: str) -> bool:
        """Go on; True where that was refused in a sentence that names the file, and nothing was changed."""
        before = folder_bytes(self.folder.path)
        try:
            with quietly():
                train(self.plan, resume=True)
        except InputError as error:
            assert file in str(error) and len(str(error)) < 1000
            assert {**folder_bytes(self.folder.path), ".lock": b""} == {**before, ".lock": b""}
            return True
        assert self.folder.model.read_bytes() == self.weights and timeless_metrics(self.folder) == self.rows
        return False


def stop(world: Path, runs: Path, optimizer: str) -> Stopped:
    plan = experiment(world, runs, training={"epochs": 2, "optimizer": OPTIMIZERS[optimizer]})
    with interrupted_after(8), pytest.raises(InterruptedRunError):
        train(plan)
    folder = RunFolder(plan.folder)
    kept = Path(shutil.copytree(folder.path, runs / "kept"))
    train(plan, resume=True)
    return Stopped(plan, kept, folder.model.read_bytes(), timeless_metrics(folder))


@pytest.fixture(autouse=True)
def read_once(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set is the same every time."""
    data = prepare(experiment(world, tmp_path))
    monkeypatch.setattr(loop, "prepare", lambda *_: data)


@pytest.fixture(scope="module")
def stopped(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    return stop(world, tmp_path_factory.mktemp("stopped"), "adam")


# what cannot be told from other numbers
CANNOT_BE_TOLD = {
    ("progress", "seconds"),
    ("progress", "best_accuracy"),
    ("progress", "sums", 0),
    ("progress", "sums", 1),
}


def changes(path: tuple[Any, ...], value: Any) -> list[Any]:
    """What to put in the place of a value."""
    if isinstance(value, torch.Tensor):
        return tensor_changes(value)
    return [odd for odd in ODD if not (path in CANNOT_BE_TOLD and odd in (-1, 5, 0.5))]


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_state_changed_anywhere_is_refused_or_goes_on_to_the_same(
    world: Path, tmp_path: Path, optimizer: str
) -> None:
    run = stop(world, tmp_path, optimizer)
    state = load_state(run.kept / "state.pt")
    alike = {"model": list(state["model"])[1:-1], "state": range(1, 99)}  # of which one stands for all
    every = [path for path in places(state) if not (len(path) > 1 and path[-1] in alike.get(path[-2], ()))]
    every = [path for path in every if not (len(path) == 4 and path[2] in alike["state"])]
    random, refused, taken = np.random.default_rng(0), 0, 0
    for path in every if optimizer == "adam" else [path for path in every if path[0] == "optimizer"]:
        new = changes(path, at(state, path))
        for change in (drop, put(new[random.integers(len(new))])):
            folder = run.bring_back()
            torch.save(changed(state, path, change), folder.state)
            refused += run.check("state.pt")
            taken += 1
    assert refused > taken / 3


def test_more_in_a_state_is_refused_or_left_alone(stopped: Stopped) -> None:
    state = load_state(stopped.kept / "state.pt")
    refused = {}
    for path in [
        (),
        ("model",),
        ("optimizer",),
        ("optimizer", "state"),
        ("optimizer", "state", 0),
        ("random",),
        ("progress",),
    ]:
        folder = stopped.bring_back()
        torch.save(changed(state, (*path, "more"), put(torch.zeros(2))), folder.state)
        refused[".".join(map(str, path))] = stopped.check("state.pt")
    assert refused == {
        "": False, "model": True, "optimizer": False, "optimizer.state": True, "optimizer.state.0": True,
        "random": True, "progress": True,
    }  # fmt: skip


def test_moments_that_share_their_memory_are_each_their_own(stopped: Stopped) -> None:
    """One tensor under two names, or one number behind a whole shape, would be changed in two places at a step."""
    state = load_state(stopped.kept / "state.pt")
    moments = state["optimizer"]["state"][0]
    shape = moments["exp_avg"].shape
    folder = stopped.bring_back()
    moments["exp_avg"] = moments["exp_avg_sq"] = torch.full((1,), 0.5).expand(shape)
    torch.save(state, folder.state)
    with quietly():
        train(stopped.plan, resume=True)
    shared = folder.model.read_bytes()
    folder = stopped.bring_back()
    moments["exp_avg"], moments["exp_avg_sq"] = torch.full(shape, 0.5), torch.full(shape, 0.5)
    torch.save(state, folder.state)
    with quietly():
        train(stopped.plan, resume=True)
    assert folder.model.read_bytes() == shared


WRONG_WEIGHTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "NaN": lambda weight: weight.clone().fill_(torch.nan),
    "one infinite": lambda weight: weight.clone().index_put_((torch.tensor(0),), torch.tensor(torch.inf)),
    "integers": lambda weight: weight.to(torch.int64),
    "half": torch.Tensor.half,
    "double": torch.Tensor.double,
    "float8": lambda weight: weight.to(torch.float8_e4m3fn),
    "complex": lambda weight: weight.to(torch.complex64),
    "flat": lambda weight: weight.flatten()[None],
    "empty": lambda weight: weight.flatten()[:0].clone(),
}


@pytest.mark.parametrize("kind", WRONG_WEIGHTS)
def test_weights_that_cannot_be_are_refused(stopped: Stopped, kind: str) -> None:
    weights = load_file(stopped.kept / "model.safetensors")
    name = sorted(weights)[-1]
    folder = stopped.bring_back()
    digest = json.loads(folder.vocabulary.read_text())["digest"]
    wrong = WRONG_WEIGHTS[kind](weights[name]).contiguous()
    save_file(weights | {name: wrong}, folder.model, {"vocabulary": digest})
    assert stopped.check("model.safetensors")


def test_records_changed_anywhere_are_refused_or_change_nothing(stopped: Stopped) -> None:
    content = yaml.safe_load((stopped.kept / "experiment.yaml").read_text())
    random, refused = np.random.default_rng(0), 0
    every = list(places(content["recorded"]))
    for path in every:
        for change in (drop, put(PLAIN[random.integers(len(PLAIN))])):
            folder = stopped.bring_back()
            folder.experiment.write_text(yaml.safe_dump(changed(content, ("recorded", *path), change)))
            refused += stopped.check(str(folder.path))
    assert refused > len(every)


LINES = {
    "a number": "5", "nothing": "null", "a list": "[]", "no step": '{"epoch": 1}', "step a word": '{"step": "1"}',
    "step a fraction": '{"step": 1.5}', "step below 0": '{"step": -1}', "step endless": '{"step": 1e999}',
    "a value of another kind": '{"step": 1, "a": []}', "no number": '{"step": 1, "a": NaN}', "no JSON": "{'step': 1}",
    "no UTF-8": "\udcff", "deep": "[" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("kind", LINES)
def test_a_line_of_the_metrics_that_cannot_be_is_named(stopped: Stopped, kind: str) -> None:
    folder = stopped.bring_back()
    lines = folder.metrics.read_text().splitlines()
    text = "\n".join([LINES[kind], *lines, ""])
    folder.metrics.write_bytes(text.encode(errors="surrogateescape"))
    assert stopped.check("metrics.jsonl: line 1")


def test_numbers_of_epochs_that_are_gone_are_missed_aloud(stopped: Stopped, capsys: pytest.CaptureFixture[str]) -> None:
    folder = stopped.bring_back()
    folder.metrics.unlink()
    train(stopped.plan, resume=True)
    assert "metrics.jsonl lacks the numbers of epoch 1" in capsys.readouterr().out
    assert folder.model.read_bytes() == stopped.weights
