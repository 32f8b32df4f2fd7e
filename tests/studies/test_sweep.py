"""Sweeps of Weights & Biases: the file is read and its command called as W&B's agent does, by its own functions."""

import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.training import SUBPROCESS, make_world, values
from typer.testing import CliRunner

import vqa.cli
from vqa.errors import InputError
from vqa.studies.ablation import ablate
from vqa.studies.sweep import read_training, tables_of_sweep, write_sweep
from vqa.training.run_folder import open_run, read_metrics

LEARNING_RATE = {"min": 1e-4, "max": 1e-2, "distribution": "log_uniform_values"}
ONLINE = "tracking.wandb=online"  # where the file has it disabled, for W&B ranks by what it sees
LOG_UNIFORM = {**LEARNING_RATE, "distribution": "log_uniform"}
FROM_0 = {"min": 0, "max": 3, "distribution": "int_uniform"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def without_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def ablation_file(world: Path, folder: Path, **changes: Any) -> Path:
    """A base experiment and an ablation of it, whose runs lie in `folder`/runs."""
    base = folder / "base.yaml"
    base.write_text(yaml.safe_dump(values(world, folder / "runs")), encoding="utf-8")
    path = folder / "ablation.yaml"
    content: dict[str, Any] = {"name": "grid", "base": str(base), "set": ["training.epochs=1"], "seeds": [0, 1]}
    content |= changes or {"grid": {"fusion": [{"name": "concat", "fusion_dim": 8}, "product"]}}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def choices(sweep: Mapping[str, Any], seed: int = 0) -> Iterator[dict[str, Any]]:
    """The values that W&B's server would choose: all of a grid, or random ones."""
    parameters = sweep["parameters"]
    if sweep["method"] == "grid":
        for point in itertools.product(*(one["values"] for one in parameters.values())):
            yield dict(zip(parameters, point, strict=True))
        return
    chosen = random.Random(seed)
    for _ in range(sweep["run_cap"]):
        yield {key: sample(one, chosen) for key, one in parameters.items()}


def sample(parameter: Mapping[str, Any], chosen: random.Random) -> Any:
    if "values" in parameter:
        return chosen.choice(parameter["values"])
    low, high = parameter["min"], parameter["max"]
    if parameter["distribution"] == "int_uniform":
        return chosen.randint(low, high)
    assert parameter["distribution"] == "log_uniform_values"
    return low * (high / low) ** chosen.random()


def command_of(sweep: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[str]:
    """What the agent of wandb runs (`wandb_agent.Agent._command_run`), by the functions that it calls itself."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    sent = json.loads(json.dumps(chosen))  # the server sends JSON
    made = create_sweep_command_args({"args": {key: {"value": value} for key, value in sent.items()}})
    made |= {"interpreter": ["python"], "program": [sweep["program"]], "env": ["/usr/bin/env"]}
    words: list[str] = []
    for word in create_sweep_command(list(sweep["command"])):
        words += made[word[2:-1]] if word.startswith("${") and word.endswith("}") else [word]
    return words


def run_agent_here(sweep: Mapping[str, Any], sweep_id: str) -> list[str]:
    """The same in this process, which is quicker."""
    identities = []
    for number, chosen in enumerate(choices(sweep)):
        identities.append(f"trial{number:03d}")
        command = command_of(sweep, chosen)
        assert command[:2] == ["/usr/bin/env", "vqa"]
        environment = {"WANDB_SWEEP_ID": sweep_id, "WANDB_RUN_ID": identities[-1]}
        ended = CliRunner(env=environment).invoke(vqa.cli.app, command[2:])
        assert ended.exit_code == 0, ended.exception
    return identities


def run_agent(sweep: Mapping[str, Any], cwd: Path, sweep_id: str) -> list[str]:
    """Call the command for every trial, each with an id; the ids."""
    binaries = cwd / "bin"
    binaries.mkdir(exist_ok=True)
    (binaries / "vqa").write_text(f'#!/bin/sh\nexec {sys.executable} -m vqa "$@"\n')
    (binaries / "vqa").chmod(0o755)
    identities = []
    for number, chosen in enumerate(choices(sweep)):
        identities.append(f"trial{number:03d}")
        environment = os.environ | SUBPROCESS | {"WANDB_SWEEP_ID": sweep_id, "WANDB_RUN_ID": identities[-1]}
        environment["PATH"] = f"{binaries}:{environment['PATH']}"
        subprocess.run(
            command_of(sweep, chosen), cwd=cwd, env=environment, check=True, capture_output=True, timeout=120
        )
    return identities


def written(path: Path, *arguments: Any, overrides: Sequence[str] = ()) -> dict[str, Any]:
    write_sweep(path, overrides, path.with_name("sweep.yaml"), *arguments)
    found = yaml.safe_load(path.with_name("sweep.yaml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_an_agent_runs_the_grid_and_the_tables_are_those_of_the_ablation(world: Path, tmp_path: Path) -> None:
    path = ablation_file(world, tmp_path, grid={"fusion": ["product"]})
    sweep = written(path)
    assert (sweep["method"], sweep["metric"]["goal"]) == ("grid", "maximize")
    identities = run_agent_here(sweep, "abc")
    folders = sorted((tmp_path / "runs/grid").glob("*/sweep-abc/*/*/finished.json"))
    assert sorted(folder.parts[-3] for folder in folders) == identities  # one folder a trial
    assert all(sweep["metric"]["name"] in read_metrics(folder.with_name("metrics.jsonl"))[0] for folder in folders)

    (swept,) = tables_of_sweep(path, "abc")
    own = ablate(path)[0]
    assert {row.name: (row.values, row.spread) for row in swept.rows} == {
        row.name: (row.values, row.spread) for row in own.rows
    }
    why = " Nothing is bold: "  # a sweep has no baseline to name
    assert swept.columns == own.columns and swept.caption.partition(why)[0] == own.caption.partition(why)[0]


@pytest.mark.slow
def test_an_agent_runs_random_values_of_ranges(world: Path, tmp_path: Path) -> None:
    path = ablation_file(
        world, tmp_path,
        cells={"a": ["fusion={name: concat, fusion_dim: 8}"], "b": ["fusion=product", "features.standardise=true"]},
        ranges={
            "training.optimizer.learning_rate": LEARNING_RATE,
            "question_encoder.hidden_dim": {"min": 4, "max": 9, "distribution": "int_uniform"},
        },
    )  # fmt: skip
    sweep = written(path, "random", 3)
    run_agent(sweep, tmp_path, "r1")
    for number, chosen in enumerate(choices(sweep)):
        folder = next((tmp_path / "runs/grid").glob(f"{chosen['cell']}/sweep-r1/trial{number:03d}/{chosen['seed']}"))
        experiment = open_run(folder)[1]
        assert experiment.training.optimizer.learning_rate == chosen["training.optimizer.learning_rate"]
        assert experiment.question_encoder["hidden_dim"] == chosen["question_encoder.hidden_dim"]
        assert experiment.fusion["name"] == {"a": "concat", "b": "product"}[chosen["cell"]]
        assert experiment.training.epochs == 1
    (table,) = tables_of_sweep(path, "r1")
    trials = [row for row in table.rows if row.kind == "run"]  # floors and ceilings stand below
    assert len(trials) == 3 and all("learning_rate" in row.name for row in trials)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 5, 0.5, 1e-5, "product", "null", "5", "1e3", "a: b", "it's", [1, 2], [], {"name": "concat"},
        {"name": "attended", "score": {"name": "mutan", "dropout": 0.1, "deep": None}, "on": False},
    ],
)  # fmt: skip
def test_every_value_of_a_grid_comes_through_an_agent(world: Path, tmp_path: Path, value: Any) -> None:
    """As an agent writes it behind a key, and YAML reads it."""
    from vqa.overrides import parse_assignments
    from vqa.studies.sweep import as_argument

    argument = command_of({"program": "vqa", "command": ["${args}"]}, {"a.b": as_argument(value)})[0]
    (read,) = parse_assignments([argument.removeprefix("--")])
    assert read.value == value and type(read.value) is type(value)


def test_two_trials_never_share_a_folder_and_one_that_was_cut_off_goes_on_in_its_own(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ablation_file(world, tmp_path)
    folders = set()
    for run in ("r1", "r2", "r1"):
        monkeypatch.setenv("WANDB_SWEEP_ID", "s")
        monkeypatch.setenv("WANDB_RUN_ID", run)
        folders.add(read_training(tmp_path / "base.yaml", ["seed=3"]).folder)
        folders.add(read_training(path, ["cell=product", "seed=1"]).folder)
    runs = tmp_path / "runs"
    assert folders == {
        place
        for run in ("r1", "r2")
        for place in (runs / f"tiny/sweep-s/{run}/3", runs / f"grid/product/sweep-s/{run}/1")
    }
    monkeypatch.setenv("WANDB_RUN_ID", "../../elsewhere")
    with pytest.raises(InputError, match="WANDB_RUN_ID"):
        read_training(path, ["cell=product"])


def test_one_run_of_an_ablation_is_the_one_that_the_ablation_has(world: Path, tmp_path: Path) -> None:
    path = ablation_file(world, tmp_path, grid={"fusion": ["concat", "product"], "training.batch_size": [16, 32]})
    by_values = read_training(path, ["fusion=product", "training.batch_size=32", "seed=1"])
    assert by_values == read_training(path, ["cell=product-32", "seed=1"])
    assert by_values.folder == tmp_path / "runs/grid/product-32/1" and by_values.training.epochs == 1
    for overrides, said in (
        ([], "vqa ablate .* runs it; .*cell=LABEL: concat-16"),
        (["fusion=product"], "a value for training.batch_size"),
        (["fusion=prodct", "training.batch_size=32"], "grid.fusion has no value 'prodct'"),
        (["cell=prodct-32"], "did you mean 'product-32'"),
    ):
        with pytest.raises(InputError, match=said):
            read_training(path, overrides)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ranges": {"training.optimizer.learning_rate": {**LEARNING_RATE, "min": -1}}}, "a min above 0"),
        ({"ranges": {"training.optimizer.learning_rate": {**LEARNING_RATE, "max": 1e-5}}}, "must be below max"),
        ({"ranges": {"training.optimizer.learning_rate": LOG_UNIFORM}}, "log_uniform_v"),
        ({"ranges": {"training.optimizer.lr": LEARNING_RATE}}, "ranges.training.optimizer.lr: .*unknown key 'lr'"),
        ({"ranges": {"training.epochs": FROM_0}}, "greater than or equal to 1"),
        ({"ranges": {"seed": FROM_0}}, "ranges.seed"),
        ({"cells": {"a": []}, "grid": {"seed": [1]}}, "grid or cells"),
    ],
)  # fmt: skip
def test_bad_ranges_are_refused_before_anything_is_written(
    world: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=f"(?s){said}"):
        written(ablation_file(world, tmp_path, **changes), "random")
    assert not (tmp_path / "sweep.yaml").exists()


def test_the_command_line_writes_a_sweep_and_says_what_comes_next(world: Path, tmp_path: Path) -> None:
    path = ablation_file(world, tmp_path, ranges={"training.optimizer.learning_rate": LEARNING_RATE})
    arguments = ["ablate", str(path), "--training.epochs=3", "--sweep"]
    ended = CliRunner().invoke(vqa.cli.app, [*arguments, str(tmp_path / "s.yaml")])
    assert ended.exit_code == 0 and "wandb agent" in ended.output
    sweep = yaml.safe_load((tmp_path / "s.yaml").read_text())
    assert (sweep["method"], sweep["run_cap"]) == ("random", 20)
    assert sweep["command"] == ["${env}", "vqa", "train", str(path), "training.epochs=3", ONLINE, "${args}"]
    refused = CliRunner().invoke(vqa.cli.app, [*arguments, str(tmp_path / "s2.yaml"), "--method", "grid"])
    assert "a grid has no ranges" in str(refused.exception)


def test_runs_without_validation_are_no_sweep_that_chooses_by_it(world: Path, tmp_path: Path) -> None:
    path = ablation_file(
        world, tmp_path, grid={"fusion": ["concat", "product"]}, set=["data.val=null", "training.keep=last"]
    )
    write_sweep(path, [], tmp_path / "sweep.yaml")
    assert "metric" not in yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    with pytest.raises(InputError, match="have no validation"):
        write_sweep(path, [], tmp_path / "sweep.yaml", "bayes")
