"""Models trained over the same batches equal those trained alone, bit for bit, stopped or not, failing or not."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.language import save_language_model
from helpers.training import (
    StopAfter,
    all_images,
    assert_same_run,
    dies_in_step,
    experiment,
    make_world,
    timeless_metrics,
    values,
    write_cache,
)

from vqa.errors import FailedRunsError, InterruptedRunError
from vqa.experiment import Experiment, check_experiment
from vqa.studies.ablation import ablate
from vqa.training import train as loop
from vqa.training.run_folder import RunFolder, load_state
from vqa.training.together import sharing_key, train_together
from vqa.training.train import train

# three that share an order, with dropout, a loss that draws, early stopping and different ends; one with its own order;
# one of the first order with a table of its own, which holds the means that it reads
PLANS: dict[str, dict[str, Any]] = {
    "attention": {"loss": {"name": "kl"}, "training": {"epochs": 3, "order_seed": 5, "clip_norm": 0.5}},
    "top_down": {
        "loss": {"name": "binary_cross_entropy"},
        "fusion": {"name": "top_down", "fusion_dim": 16},
        "seed": 1,
        "training": {"epochs": 2, "order_seed": 5},
    },
    "drawn": {
        "loss": {"name": "sampled_cross_entropy"},
        "seed": 2,
        "training": {"epochs": 4, "order_seed": 5, "patience": 1},
    },
    "apart": {
        "loss": {"name": "soft_cross_entropy"},
        "fusion": {"name": "top_down", "fusion_dim": 8},
        "seed": 3,
        "training": {"epochs": 2},
    },
    "mean": {"fusion": {"name": "product"}, "training": {"epochs": 2, "order_seed": 5}},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def plans(world: Path, runs: Path) -> list[Experiment]:
    return [experiment(world, runs, name=name, **changes) for name, changes in PLANS.items()]


@pytest.fixture(scope="module")
def alone(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    return {plan.name: train(plan) for plan in plans(world, tmp_path_factory.mktemp("alone"))}


def assert_as_alone(some: list[Experiment], alone: dict[str, RunFolder]) -> None:
    for plan in some:
        assert_same_run(RunFolder(plan.folder), alone[plan.name])
        assert RunFolder(plan.folder).finished.is_file()


def test_each_result_is_that_of_its_lone_run(world: Path, tmp_path: Path, alone: dict[str, RunFolder]) -> None:
    every = plans(world, tmp_path)
    keys, tables = ({sharing_key(plan, order=order) for plan in every} for order in (True, False))
    assert (len(keys), len(tables)) == (3, 2)
    assert train_together(every, "again") == {}
    assert_as_alone(every, alone)
    assert len(timeless_metrics(alone["drawn"])) < 4  # its patience did end it early
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert train_together(every, "again") == {}  # finished runs are left as they are
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("looks", [0, 3, 8, 15])
def test_stopped_and_resumed_each_is_still_that_of_its_lone_run(
    world: Path, tmp_path: Path, alone: dict[str, RunFolder], monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """Then one run's folder is lost, so that the three have come to different places when they go on."""
    every = plans(world, tmp_path)[:3]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_signals", lambda: nullcontext(StopAfter(looks)))
        with pytest.raises(InterruptedRunError, match="go on with: again"):
            train_together(every, "again")
    shutil.rmtree(every[1].folder)
    assert train_together(every, "again") == {}
    assert_as_alone(every, alone)


def test_killed_within_a_long_epoch_each_goes_on_from_its_last_save(
    world: Path, tmp_path: Path, alone: dict[str, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    every = plans(world, tmp_path)[:2]
    with monkeypatch.context() as patch:
        dies_in_step(patch, 2 * 10 + 1)
        with pytest.raises(KeyboardInterrupt):
            train_together(every, "again")
    for plan in every:
        assert load_state(RunFolder(plan.folder).state)["progress"]["step_in_epoch"] == 4
    assert train_together(every, "again") == {}
    assert_as_alone(every, alone)


def test_models_that_tune_a_pretrained_encoder_each_tune_their_own(world: Path, tmp_path: Path) -> None:
    save_language_model(tmp_path / "bert", "bert")
    encoder = {"name": f"hf:{tmp_path / 'bert'}", "tuned": True}
    training = {"epochs": 1, "order_seed": 0, "batch_size": 164}
    found = {}
    for runs in ("alone", "together"):
        plain = values(world, tmp_path / runs, training=training) | {"question_encoder": encoder}
        found[runs] = [check_experiment(plain | {"seed": seed}, "test") for seed in (0, 1)]
    for plan in found["alone"]:
        train(plan)
    assert train_together(found["together"], "again") == {}
    for one, two in zip(found["alone"], found["together"], strict=True):
        assert_same_run(RunFolder(one.folder), RunFolder(two.folder))


def test_one_that_fails_leaves_the_others_alone(
    world: Path, tmp_path: Path, alone: dict[str, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    bad = experiment(world, tmp_path, name="bad", training={"order_seed": 5, "optimizer": {"learning_rate": 1e30}})
    every = [bad, *plans(world, tmp_path)[:2]]
    failed = train_together(every, "again")
    assert list(failed) == [bad.folder] and "bad: " in failed[bad.folder]
    assert not RunFolder(bad.folder).finished.exists()
    assert "FAILED, the others go on" in capsys.readouterr().out
    assert_as_alone(every[1:], alone)


def test_what_a_batch_depends_on_keeps_models_apart(world: Path, tmp_path: Path) -> None:
    write_cache(tmp_path / "other.h5", all_images(world / "data"))
    first = experiment(world, tmp_path, loss={"name": "kl"})
    means = ({"name": name} for name in ("concat", "product", "mutan"))
    assert len({sharing_key(experiment(world, tmp_path, fusion=fusion)) for fusion in means}) == 1
    same = {"fusion": {"name": "top_down"}, "training": {"epochs": 9, "clip_norm": 1.0}}
    same["loss"] = {"name": "binary_cross_entropy"}
    assert sharing_key(experiment(world, tmp_path, **same)) == sharing_key(first)
    different: list[dict[str, Any]] = [
        {"seed": 1},
        {"training": {"order_seed": 2}},
        {"training": {"batch_size": 7}},
        {"training": {"precision": "bfloat16"}},
        {"features": {"cache": str(tmp_path / "other.h5")}},
        {"data": {"holdout": 0.5}},
        {"words": {"min_count": 2}},
        {"fusion": {"name": "concat"}},  # these read other than maps
        {"fusion": {"name": "question_only"}},
        {"answers": {"size": 3}},
        {"loss": {"name": "cross_entropy"}},  # these learn from fewer or more of the questions
        {"loss": {"name": "binary_cross_entropy", "outside": "negative"}},
    ]
    keys = {sharing_key(experiment(world, tmp_path, **{"loss": {"name": "kl"}} | changes)) for changes in different}
    assert len(keys) == len(different) and sharing_key(first) not in keys


def test_an_ablation_together_gives_the_same_table(world: Path, tmp_path: Path) -> None:
    tables = []
    for folder, flag in (("one", False), ("all", True)):
        base = values(world, tmp_path / folder, training={"epochs": 1, "order_seed": 0})
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
        grid: dict[str, Any] = {"name": "grid", "base": str(tmp_path / "base.yaml"), "seeds": [0, 1]}
        grid |= {"grid": {"fusion": [{"name": "concat"}]}}
        (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
        tables.append(
            [table for table in ablate(tmp_path / "grid.yaml", together=flag) if "measured" not in table.title]
        )
    assert tables[0] == tables[1]


@pytest.mark.parametrize("flag", [False, True])
def test_a_run_of_an_ablation_that_fails_does_not_stop_the_others(world: Path, tmp_path: Path, flag: bool) -> None:
    """They are evaluated, and the error comes last, again when the same command is given again."""
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(values(world, tmp_path / "runs", training={"epochs": 1})))
    rates = {"training.optimizer.learning_rate": [1e30, 0.01]}
    grid = {"name": "grid", "base": str(tmp_path / "base.yaml"), "grid": rates}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    for _ in range(2):
        with pytest.raises(FailedRunsError, match=r"1 of 2 runs failed:\ngrid/1e30: .* is not finite"):
            ablate(tmp_path / "grid.yaml", together=flag)
        assert (tmp_path / "runs/grid/0.01/0/evaluation_val.json").is_file()
        table = (tmp_path / "runs/grid/ablation.md").read_text()
        assert "| 1e30 (n = 0 of 1, 1 failed) | – |" in table and "Failed: 1e30, seed 0: grid/1e30: the loss" in table
        numbers = json.loads((tmp_path / "runs/grid/ablation.json").read_text())
        assert numbers["runs"]["0.01"] == {"done": [0], "failed": {}}
        assert "is not finite" in numbers["runs"]["1e30"]["failed"]["0"] and numbers["cells"]["1e30"] == {}
    assert not (tmp_path / "all/failing/ablation.md").exists()
