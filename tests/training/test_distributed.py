"""Two real processes under torchrun against one: the same weights, numbers and results files; stopped, killed, failing.

The grid of the first test has no dropout, since every process draws masks of its own, and batch sizes that leave last
batches of 26, 1 (too few to share), 44 and 2 of the 326 questions.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.training import SUBPROCESS, all_images, make_world, values, write_cache
from hypothesis import given
from hypothesis import strategies as st

from vqa.experiment import read_experiment
from vqa.models import LOSSES, Image, Target
from vqa.studies.ablation import ablate
from vqa.training.inputs.batches import Batch
from vqa.training.run_folder import RunFolder, load_state, read_metrics
from vqa.training.step import Inputs, share_of_mean
from vqa.training.train import train

TORCHRUN = (
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
    "--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGUSR1", "-m", "vqa",
)  # fmt: skip
SUMMED = ("train/", "gradient_norm")  # over questions, in another order
FILM = {"name": "film", "blocks": 1, "hidden_dim": 8, "fusion_dim": 8}  # has batch normalisation
CELLS = {
    "attention": {
        "fusion": {"name": "stacked_attention", "hops": 2, "attention_dim": 8, "dropout": 0.0},
        "training.batch_size": 25,
        "training.clip_norm": 0.5,
    },
    "product": {"fusion": {"name": "product", "fusion_dim": 16, "dropout": 0.0}, "training.batch_size": 50},
    "film": {"fusion": FILM, "training.batch_size": 47},
    # uses neither the words nor the question encoder, so their parameters have no gradients, and weights decay
    "blind": {
        "fusion": {"name": "image_only", "dropout": 0.0},
        "loss": {"name": "soft_cross_entropy"},
        "training.batch_size": 54,
        "training.optimizer.weight_decay": 0.1,
    },
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def start(*arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    """`vqa` with arguments in two processes."""
    return subprocess.Popen(
        [*TORCHRUN, *arguments], cwd=cwd, env=os.environ | SUBPROCESS, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def write_grid(world: Path, folder: Path) -> Path:
    """The ablation of `CELLS`, runs landing in folder/runs, the last cell twice."""
    folder.mkdir()
    (folder / "base.yaml").write_text(yaml.safe_dump(values(world, Path("runs"), classifier={"dropout": 0.0})))
    cells = {name: [f"{key}={json.dumps(value)}" for key, value in cell.items()] for name, cell in CELLS.items()}
    grid = {"name": "grid", "base": "base.yaml", "cells": cells | {"trained": cells["blind"]}}
    (folder / "grid.yaml").write_text(yaml.safe_dump(grid))
    return folder


@pytest.fixture(scope="module")
def both(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The runs of one process, those of two, and what the two said; "trained" is of one process in both."""
    folder = tmp_path_factory.mktemp("both")
    one, two = write_grid(world, folder / "one"), write_grid(world, folder / "two")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(one)
        ablate(Path("grid.yaml"))
    shutil.copytree(one / "runs/grid/trained", two / "runs/grid/trained")
    for made in two.glob("runs/grid/trained/0/*val*"):
        made.unlink()
    said, _ = (process := start("ablate", "grid.yaml", cwd=two)).communicate(timeout=120)
    assert process.returncode == 0, said
    return one / "runs/grid", two / "runs/grid", said


@pytest.mark.parametrize("cell", CELLS)
def test_two_processes_train_what_one_trains(both: tuple[Path, Path, str], cell: str) -> None:
    one, two = (load_state(RunFolder(folder / cell / "0").state) for folder in both[:2])
    torch.testing.assert_close(two["model"], one["model"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(two["optimizer"], one["optimizer"], rtol=1e-4, atol=1e-5)
    rows = [read_metrics(RunFolder(folder / cell / "0").metrics) for folder in both[:2]]
    assert len(rows[0]) == len(rows[1]) == 2
    for row, wanted in zip(rows[1], rows[0], strict=True):
        for key in wanted.keys() - {"seconds", "questions_per_second", "data_wait", "memory_gib"}:
            assert row[key] == (pytest.approx(wanted[key], rel=1e-5) if key.startswith(SUMMED) else wanted[key]), key


def test_an_evaluation_in_two_processes_has_the_bytes_of_one(both: tuple[Path, Path, str]) -> None:
    for task in ("open_ended", "multiple_choice"):
        one, two = ((folder / f"trained/0/results_val_{task}.json").read_bytes() for folder in both[:2])
        assert one == two
    one, two = ((folder / "trained/0/evaluation_val.json").read_bytes() for folder in both[:2])
    assert one == two


def test_one_process_speaks_and_writes(both: tuple[Path, Path, str]) -> None:
    one, two, said = both
    for cell in CELLS:
        assert len(re.findall(rf"^grid/{cell}, seed 0$", said, re.MULTILINE)) == 1
    assert said.count("table: ") == 1 and "2 processes" in said
    names = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in (one, two)]
    assert names[0] == names[1]


def write_experiment(world: Path, folder: Path, **changes: Any) -> Path:
    """An experiment with dropout whose epochs have some 160 steps, so that a signal comes in the middle of one."""
    settings = {"training": {"epochs": 4, "batch_size": 2}} | changes
    (folder / "e.yaml").write_text(yaml.safe_dump(values(world, folder / "runs", **settings)))
    return folder / "e.yaml"


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_said_once(world: Path, tmp_path: Path) -> None:
    write_cache(tmp_path / "nan.h5", all_images(world / "data"), nan_rows=(0,))
    path = write_experiment(world, tmp_path, features={"cache": str(tmp_path / "nan.h5")})
    said, _ = (process := start("train", str(path), cwd=tmp_path)).communicate(timeout=120)
    assert process.returncode != 0
    assert said.count("the loss is not finite at step") == 1 and "Error: tiny" not in said


@pytest.mark.slow
def test_bad_input_is_said_once(world: Path, tmp_path: Path) -> None:
    path = write_experiment(world, tmp_path, features={"cache": "none.h5"})
    said, _ = (process := start("train", str(path), cwd=tmp_path)).communicate(timeout=120)
    assert process.returncode != 0
    assert said.count("none.h5: no such feature cache") == 1


@pytest.fixture(scope="module")
def whole(world: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """An uninterrupted run of two processes, with dropout."""
    folder = tmp_path_factory.mktemp("whole")
    path = write_experiment(world, folder)
    said, _ = (process := start("train", str(path), cwd=folder)).communicate(timeout=120)
    assert process.returncode == 0, said
    return RunFolder(read_experiment(path).folder)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_stopped_or_killed_and_resumed_equals_uninterrupted(
    world: Path, tmp_path: Path, whole: RunFolder, number: signal.Signals
) -> None:
    """The signals that save go to torchrun; SIGKILL to one process, whereupon torchrun ends the other."""
    path = write_experiment(world, tmp_path)
    folder = RunFolder(read_experiment(path).folder)
    process = start("train", str(path), cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not folder.state.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    target = process.pid if number != signal.SIGKILL else children(process.pid)[1]
    os.kill(target, number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and not folder.finished.exists()
    if number != signal.SIGKILL:
        assert said.count("go on with:") == 1, said
        assert load_state(folder.state)["progress"]["step_in_epoch"] % 20 == 0
    said, _ = (process := start("train", str(path), "--resume", cwd=tmp_path)).communicate(timeout=120)
    assert process.returncode == 0, said
    assert folder.model.read_bytes() == whole.model.read_bytes()
    last, first = load_state(folder.state), load_state(whole.state)
    torch.testing.assert_close(last["model"], first["model"], rtol=0, atol=0)
    torch.testing.assert_close(last["random_of_others"], first["random_of_others"], rtol=0, atol=0)


def children(parent: int) -> list[int]:
    """The processes that a process has started (Linux)."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_in_one(world: Path, tmp_path: Path) -> None:
    changes = {"classifier": {"dropout": 0.0}, "fusion": CELLS["attention"]["fusion"]}
    path = write_experiment(world, tmp_path, training={"epochs": 4, "batch_size": 6}, **changes)
    plan = read_experiment(path)
    process = start("train", str(path), cwd=tmp_path)
    while not RunFolder(plan.folder).state.is_file() and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    folder = train(plan, resume=True)
    alone = train(read_experiment(path, [f"runs={tmp_path / 'alone'}"]))
    one, two = load_state(alone.state)["model"], load_state(folder.state)["model"]
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)


QUESTION = st.tuples(st.integers(-1, 3), st.integers(-1, 3))  # majority answer, another human's


@given(st.lists(QUESTION, min_size=1, max_size=23), st.integers(1, 5), st.sampled_from(sorted(LOSSES)))
def test_the_shares_of_a_batch_add_up_to_its_gradient(questions: list[tuple[int, int]], size: int, name: str) -> None:
    """Without processes: shares of every rank, unequal, and with questions that no loss counts."""
    count = len(questions)
    answer_BK = torch.tensor(questions)
    answer_BK[answer_BK[:, 0] == answer_BK[:, 1], 1] = -1
    known_BK = (answer_BK >= 0).float()
    target = Target(
        answer_BK[:, 0], answer_BK, known_BK * torch.tensor([2.0, 1.0]), known_BK * torch.tensor([0.6, 0.3])
    )
    logits_BA = torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss_function = LOSSES[name]().eval()
    whole_BA = logits_BA.clone().requires_grad_()
    whole = loss_function(whole_BA, target)
    whole.backward()

    parts_BA, total = logits_BA.clone().requires_grad_(), torch.zeros(())
    batch = Batch(torch.arange(count), torch.arange(count), 1)
    covered = torch.zeros(count)
    for rank in range(size):
        part, copies = batch.share(rank, size)
        covered[part.index_B] += 1 / copies
        here = Target(*(column[part.index_B] for column in target))
        inputs = Inputs(Image(whole_BA), part.index_B, part.index_B, here, target, count, copies)
        loss = loss_function(parts_BA[part.index_B], here) * share_of_mean(loss_function, inputs)
        total = total + loss
    total.backward()
    torch.testing.assert_close(covered, torch.ones(count))
    torch.testing.assert_close(total, whole, rtol=1e-5, atol=1e-6, check_dtype=False)
    torch.testing.assert_close(parts_BA.grad, whole_BA.grad, rtol=1e-5, atol=1e-7)
