"""The loop: it learns, is repeatable to the bit, stops and goes on exactly, and never writes over anything."""

import errno
import fcntl
import json
import math
import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.training import (
    StopAfter,
    all_images,
    assert_same_run,
    dies_in_step,
    experiment,
    folder_bytes,
    make_world,
    timeless_metrics,
    values,
    write_cache,
)
from rich.progress import Progress
from safetensors.torch import load_file

from vqa.errors import InputError, InterruptedRunError, NonFiniteLossError
from vqa.experiment import check_experiment
from vqa.files import atomic_write
from vqa.training import run as run_in_training
from vqa.training import step
from vqa.training import train as loop
from vqa.training.inputs.batches import batches
from vqa.training.inputs.prepare import prepare
from vqa.training.resume import sole_writer
from vqa.training.run import begin, build
from vqa.training.run_folder import RunFolder, load_state, read_metrics
from vqa.training.together import train_together
from vqa.training.train import train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """An uninterrupted run of four epochs."""
    return train(experiment(world, tmp_path_factory.mktemp("finished"), training={"epochs": 4}))


def test_the_loss_falls_and_every_file_is_there(finished: RunFolder) -> None:
    losses = [row["train/loss"] for row in timeless_metrics(finished)]
    assert len(losses) == 4 and losses[-1] < losses[0]
    names = {path.name for path in finished.path.iterdir()}
    assert names >= {
        "experiment.yaml", "vocabulary.json", "model.safetensors", "state.pt", "metrics.jsonl", "environment.json",
        "finished.json",
    }  # fmt: skip
    assert not [name for name in names if name.endswith(".part")]
    done = json.loads(finished.finished.read_text())
    best = max(row["val/open_ended/overall"] for row in timeless_metrics(finished))
    assert done["best_val_open_ended"] == best and done["epochs"] == 4


def test_it_learns_a_few_questions_by_heart(world: Path, tmp_path: Path) -> None:
    few = experiment(
        world, tmp_path, classifier={"dropout": 0}, loss={"name": "cross_entropy"},
        data={"holdout": 0.9, "holdout_seed": 1},
        training={"epochs": 60, "batch_size": 8, "optimizer": {"learning_rate": 0.03}},
    )  # fmt: skip
    rows = read_metrics(train(few).metrics)
    assert rows[-1]["train/soft_score"] > 90 and rows[-1]["train/loss"] < 0.4
    assert rows[0]["train/soft_score"] < 60


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    finished: RunFolder, world: Path, tmp_path: Path
) -> None:
    torch.manual_seed(99)  # what happened before in the process must not matter
    np.random.seed(99)
    assert_same_run(train(experiment(world, tmp_path, training={"epochs": 4})), finished)
    other = train(experiment(world, tmp_path, seed=1, training={"epochs": 4}))
    assert other.model.read_bytes() != finished.model.read_bytes()


@pytest.mark.parametrize("looks", [2, 6, 7, 9, 20])
def test_stopped_anywhere_and_resumed_equals_uninterrupted(
    finished: RunFolder, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    plan = experiment(world, tmp_path, training={"epochs": 4})
    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_signals", lambda: nullcontext(StopAfter(looks)))
        with pytest.raises(InterruptedRunError, match=r"go on with: vqa train x\.yaml --resume"):
            train(plan, command="vqa train x.yaml --resume")
    with pytest.raises(InputError, match="unfinished run; go on with --resume"):
        train(plan)
    before = folder_bytes(tmp_path)
    assert_same_run(train(plan, resume=True), finished)
    assert folder_bytes(tmp_path).keys() >= before.keys()


@pytest.mark.parametrize("own", ["decoupled", "clip_decay"])
def test_a_decay_of_its_own_place_is_resumed_and_no_other_goes_on(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    sgd = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.01, own: True}
    training = {"epochs": 2, "clip_norm": 0.5, "initial_bias": {"question_encoder": 1.0}, "optimizer": sgd}
    plan = experiment(world, tmp_path / "stopped", training=training)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_signals", lambda: nullcontext(StopAfter(6)))
        with pytest.raises(InterruptedRunError):
            train(plan)
    with pytest.raises(InputError):
        train(
            experiment(world, tmp_path / "stopped", training=training | {"optimizer": sgd | {own: False}}), resume=True
        )
    whole = train(experiment(world, tmp_path / "whole", training=training))
    assert_same_run(train(plan, resume=True), whole)
    plain = train(experiment(world, tmp_path / "plain", training=training | {"optimizer": sgd | {own: False}}))
    assert plain.model.read_bytes() != whole.model.read_bytes()


def test_a_run_killed_within_a_long_epoch_goes_on_from_its_last_save(
    finished: RunFolder, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second step takes longer than a save may wait; the process dies in step 11, the fifth of an epoch."""
    plan = experiment(world, tmp_path, training={"epochs": 4})
    with monkeypatch.context() as patch:
        dies_in_step(patch, 11)
        with pytest.raises(KeyboardInterrupt):
            train(plan)
    progress = load_state(RunFolder(plan.folder).state)["progress"]
    assert (progress["epoch"], progress["step_in_epoch"], progress["step"]) == (1, 4, 10)
    assert_same_run(train(plan, resume=True), finished)


@pytest.mark.parametrize("together", [False, True])
def test_epochs_that_are_over_make_room_for_the_bar_of_this_one(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    shown: list[int] = []
    validate = loop.validate

    def look(*arguments: Any) -> dict[str, Any]:
        shown.append(len(bars[-1].tasks))
        return validate(*arguments)

    bars: list[Progress] = []
    make = loop.progress_bar

    def kept() -> Progress:
        bars.append(make())
        return bars[-1]

    monkeypatch.setattr(loop, "validate", look)
    monkeypatch.setattr(loop, "progress_bar", kept)
    plan = experiment(world, tmp_path, training={"epochs": 3})
    train_together([plan], "again") if together else train(plan)
    assert shown == [1, 1, 1]


def test_a_run_that_logged_but_did_not_save_an_epoch_goes_on_exactly(
    finished: RunFolder, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process killed between the two writes leaves it: in its first epoch, then in its third."""
    plan = experiment(world, tmp_path, training={"epochs": 4})
    saves = run_in_training.save_progress
    for resume, save in ((False, 1), (True, 3)):
        left = [save]

        def dies(*arguments: Any, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            saves(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(run_in_training, "save_progress", dies)
            with pytest.raises(KeyboardInterrupt):
                train(plan, resume=resume)
    assert_same_run(train(plan, resume=True), finished)


def test_a_finished_run_is_left_as_it_is(finished: RunFolder, world: Path) -> None:
    before = folder_bytes(finished.path)
    train(experiment(world, finished.path.parents[1], training={"epochs": 4}))
    assert folder_bytes(finished.path) == before


def test_another_experiment_in_the_same_folder_is_refused(finished: RunFolder, world: Path) -> None:
    before = folder_bytes(finished.path)
    other = experiment(world, finished.path.parents[1], training={"epochs": 5}, fusion={"name": "concat"})
    for resume in (False, True):
        with pytest.raises(InputError, match="different experiment") as caught:
            train(other, resume=resume)
        assert "training.epochs: 4 there, 5 here" in str(caught.value)
        assert "fusion.name: 'stacked_attention' there, 'concat' here" in str(caught.value)
        assert "more)" not in str(caught.value)  # options of the other fusion are no news
    assert folder_bytes(finished.path) == before


def test_a_finished_run_of_data_that_has_changed_is_not_passed_off_as_done(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "own")
    plan = experiment(tmp_path / "own", tmp_path / "runs", training={"epochs": 1})
    folder = train(plan)
    questions = next((tmp_path / "own/data").glob("v2_OpenEnded*train2014_questions.json"))
    questions.write_bytes(questions.read_bytes() + b"\n")
    before = folder_bytes(folder.path)
    with pytest.raises(InputError, match=r"was trained on other contents of .*train2014_questions"):
        train(plan)
    shutil.rmtree(tmp_path / "own")
    train(plan)  # without its data a finished run is still done
    assert folder_bytes(folder.path) == before


@pytest.fixture
def stopped(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, RunFolder]:
    """An experiment with a cache of its own, stopped in its second epoch."""
    write_cache(tmp_path / "own.h5", all_images(world / "data"))
    plan = check_experiment(values(world, tmp_path / "runs", features={"cache": str(tmp_path / "own.h5")}), "test")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_signals", lambda: nullcontext(StopAfter(9)))
        with pytest.raises(InterruptedRunError):
            train(plan)
    return plan, RunFolder(plan.folder)


def test_resuming_with_other_features_is_refused_and_changes_nothing(
    stopped: tuple[Any, RunFolder], world: Path, tmp_path: Path
) -> None:
    plan, folder = stopped
    (tmp_path / "own.h5").unlink()
    write_cache(tmp_path / "own.h5", all_images(world / "data"), channels=5)
    before = folder_bytes(folder.path)
    with pytest.raises(InputError, match=r"features\.channels: 6 there, 5 here"):
        train(plan, resume=True)
    assert folder_bytes(folder.path) == before


@pytest.mark.parametrize("damage", ["truncated", "another", "empty"])
def test_a_damaged_state_is_one_message_and_changes_nothing(stopped: tuple[Any, RunFolder], damage: str) -> None:
    plan, folder = stopped
    if damage == "truncated":
        folder.state.write_bytes(folder.state.read_bytes()[:1000])
    elif damage == "empty":
        folder.state.write_bytes(b"")
    else:
        torch.save({"model": {}}, folder.state)
    before = folder_bytes(folder.path)
    with pytest.raises(InputError, match=r"state\.pt"):
        train(plan, resume=True)
    assert folder_bytes(folder.path) == before


def test_a_state_of_another_model_is_refused(stopped: tuple[Any, RunFolder]) -> None:
    plan, folder = stopped
    state = load_state(folder.state)
    name = next(iter(state["model"]))
    state["model"][name] = torch.zeros(3)
    torch.save(state, folder.state)
    with pytest.raises(InputError, match="the weights belong to another experiment") as caught:
        train(plan, resume=True)
    assert name in str(caught.value)


def test_two_processes_cannot_train_into_one_folder(world: Path, tmp_path: Path) -> None:
    plan = experiment(world, tmp_path)
    with sole_writer(RunFolder(plan.folder)), pytest.raises(InputError, match="another process is training this run"):
        train(plan)


def test_a_file_system_without_locks_is_said_and_trained_on(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    plan = experiment(world, tmp_path)
    with sole_writer(RunFolder(plan.folder)), pytest.raises(InputError, match="another process is training this run"):
        train(plan)
    assert train(plan).finished.is_file()
    assert "this file system cannot lock files" in capfd.readouterr().err


def test_what_a_killed_process_had_half_written_is_removed(world: Path, tmp_path: Path) -> None:
    """Those of the other files may be in the making by an evaluation."""
    plan = experiment(world, tmp_path)
    plan.folder.mkdir(parents=True)
    names = [f".state.pt.{'ab12' * 4}.part", ".model.safetensors.cd34cd34.part"]
    for name in names:
        (plan.folder / name).write_bytes(b"half")
    with atomic_write(plan.folder / "report.html") as file:
        with sole_writer(RunFolder(plan.folder)):
            assert [(plan.folder / name).exists() for name in names] == [False, False]
        file.write("whole")


def test_a_run_that_another_process_trained_meanwhile_is_not_written_over(world: Path, tmp_path: Path) -> None:
    """Both found an empty folder; the other was done before this one had read its data."""
    plan = experiment(world, tmp_path)
    slow = build(plan, prepare(plan))
    before = folder_bytes(train(plan).path)
    with pytest.raises(InputError, match="another process has trained this run meanwhile"):
        begin(slow, resume=False)
    assert folder_bytes(slow.folder.path) == before


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_earlier_weights(
    stopped: tuple[Any, RunFolder], world: Path, tmp_path: Path
) -> None:
    plan, folder = stopped
    weights = folder.model.read_bytes()
    state = folder.state.read_bytes()
    (tmp_path / "own.h5").unlink()
    train_rows = tuple(range(len(prepare(experiment(world, tmp_path)).train.images.ids)))
    write_cache(tmp_path / "own.h5", all_images(world / "data"), nan_rows=train_rows)
    with pytest.raises(NonFiniteLossError, match=r"not finite at step \d+ \(epoch 2, step \d of it\)"):
        train(plan, resume=True)
    assert folder.model.read_bytes() == weights and folder.state.read_bytes() == state
    assert all(tensor.isfinite().all() for tensor in load_file(folder.model).values())


def test_the_first_step_that_is_not_finite_is_named(world: Path, tmp_path: Path) -> None:
    write_cache(tmp_path / "nan.h5", all_images(world / "data"), nan_rows=(0,))
    bad = check_experiment(values(world, tmp_path / "runs", features={"cache": str(tmp_path / "nan.h5")}), "test")
    prepared = prepare(bad)
    with pytest.raises(NonFiniteLossError) as caught:
        train(bad)
    todo = batches(prepared.train_questions, bad.training.batch_size, bad.seed, 0)
    first = next(i for i, b in enumerate(todo) if (prepared.train_questions.image_row_N[b.index_B] == 0).any())
    assert f"at step {first} (epoch 1, step {first + 1} of it)" in str(caught.value)
    assert not RunFolder(bad.folder).model.exists()


def test_features_of_val_that_are_not_finite_are_one_message(world: Path, tmp_path: Path) -> None:
    images = all_images(world / "data")
    rows = tuple(range(len(prepare(experiment(world, tmp_path)).train.images.ids), len(images.ids)))
    write_cache(tmp_path / "nan.h5", images, nan_rows=rows)
    bad = check_experiment(values(world, tmp_path / "runs", features={"cache": str(tmp_path / "nan.h5")}), "test")
    with pytest.raises(InputError, match=r"not finite.*look for NaN in the features"):
        train(bad)


@pytest.mark.parametrize(("batch_size", "looks"), [(1000, 100), (64, 1)], ids=["end of epoch", "stopped"])
def test_weights_that_are_not_finite_are_never_saved(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int, looks: int
) -> None:
    """A finite loss whose gradient is not, in the last step of an epoch or before a stop."""

    def poison(model: torch.nn.Module, *limits: object) -> None:
        next(model.parameters()).grad = torch.full_like(next(model.parameters()), math.nan)

    monkeypatch.setattr(step, "clip_gradients", poison)
    monkeypatch.setattr(loop, "stop_signals", lambda: nullcontext(StopAfter(looks)))
    plan = experiment(world, tmp_path, training={"batch_size": batch_size})
    with pytest.raises(NonFiniteLossError, match=r"is not finite in epoch 1 \(step 1\)"):
        train(plan)
    assert not RunFolder(plan.folder).model.exists() and not RunFolder(plan.folder).state.exists()


def test_patience_ends_the_run_also_after_a_resume(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([10.0, 30.0, 20.0, 30.0, 40.0])
    monkeypatch.setattr(loop, "validate", lambda *_: {"open_ended/overall": next(accuracies)})
    plan = experiment(world, tmp_path, training={"epochs": 5, "patience": 2})
    folder = train(plan)
    assert len(read_metrics(folder.metrics)) == 4
    done = json.loads(folder.finished.read_text())
    assert (done["best_epoch"], done["best_val_open_ended"], done["epochs"]) == (2, 30.0, 4)
    folder.finished.unlink()  # as if it had been killed just before the last write
    train(plan, resume=True)
    assert len(read_metrics(folder.metrics)) == 4


def test_features_reach_the_model_in_bfloat16_and_float32(world: Path, tmp_path: Path) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        plan = experiment(world, tmp_path, name=precision, training={"epochs": 1, "precision": precision})
        losses.append(read_metrics(train(plan).metrics)[0]["train/loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0] != losses[1]
