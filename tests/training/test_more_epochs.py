"""A finished run goes on for more epochs, to the same run as one of so many from its start; or says why it does not."""

from pathlib import Path
from typing import Any

import pytest
from helpers.training import assert_same_run, dies_in_step, experiment, folder_bytes, make_world

from vqa.errors import InputError
from vqa.training import resume
from vqa.training.run_folder import open_run
from vqa.training.train import train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def trained(world: Path, runs: Path, epochs: int, **training: Any) -> Any:
    return train(experiment(world, runs, training={"epochs": epochs, **training}))


@pytest.mark.parametrize(
    "training",
    [
        {"schedule": {"name": "constant", "warmup": 2.5}, "patience": 9},
        {"schedule": {"name": "exponential", "factor": 0.97}, "optimizer": {"name": "sgd", "momentum": 0.9}},
        {"schedule": {"name": "step", "factor": 0.5, "at": [1, 3]}},
    ],
)
def test_more_epochs_are_those_of_a_run_of_so_many(world: Path, tmp_path: Path, training: dict[str, Any]) -> None:
    short, long = tmp_path / "short", tmp_path / "long"
    trained(world, short, 2, **training)
    lengthened = trained(world, short, 4, **training)
    assert_same_run(lengthened, trained(world, long, 4, **training))
    assert open_run(lengthened.path)[1].training.epochs == 4
    assert trained(world, short, 4, **training) == lengthened  # there is nothing left to do


def test_one_killed_while_it_goes_on_goes_on(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(world, tmp_path / "a", 1)
    longer = experiment(world, tmp_path / "a", training={"epochs": 3})
    with monkeypatch.context() as patch:  # between its two files
        patch.setattr(resume, "write_experiment", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(longer)
    with pytest.raises(InputError, match="--resume"):
        train(longer)
    with monkeypatch.context() as patch:
        dies_in_step(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(longer, resume=True)
    assert_same_run(train(longer, resume=True), trained(world, tmp_path / "b", 3))


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"schedule": {"name": "cosine"}}, "cosine schedule, which falls to 0 over all epochs"),
        ({"patience": 1, "optimizer": {"learning_rate": 1e-9}}, "ended after epoch 2 because the validation accuracy"),
    ],
)
def test_what_would_be_another_run_is_refused_and_says_why(
    world: Path, tmp_path: Path, training: dict[str, Any], said: str
) -> None:
    folder = trained(world, tmp_path, 3, **training)
    before = folder_bytes(folder.path)
    with pytest.raises(InputError, match=said):
        trained(world, tmp_path, 5, **training)
    with pytest.raises(InputError, match=r"different experiment \(training.epochs: 3 there, 2 here\)"):
        trained(world, tmp_path, 2, **training)
    assert folder_bytes(folder.path) == before


def test_without_its_last_state_it_cannot_go_on(world: Path, tmp_path: Path) -> None:
    trained(world, tmp_path, 1).state.unlink()
    with pytest.raises(InputError, match=r"has no state\.pt"):
        trained(world, tmp_path, 2)


def test_the_weights_of_a_last_epoch_that_is_none_any_more_are_gone(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"val": None}
    folder = train(experiment(world, tmp_path / "a", data=data, training={"epochs": 1, "keep": "last"}))
    longer = experiment(world, tmp_path / "a", data=data, training={"epochs": 3, "keep": "last"})
    with monkeypatch.context() as patch:
        dies_in_step(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(longer)
    assert not folder.model.exists()  # or it would be evaluated as "last of 3 epochs"
    anew = experiment(world, tmp_path / "b", data=data, training={"epochs": 3, "keep": "last"})
    assert_same_run(train(longer, resume=True), train(anew))
