"""Several processes on one ablation: each run is done once, by whoever is alive, and the tables are those of one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.grids import FUSIONS, Ablate, kill_one_at_work, leases, wait_until, write_grid
from helpers.training import make_world

from vqa.errors import FailedRunsError, InputError
from vqa.studies.ablation import ablate
from vqa.studies.worker import MOST_DEATHS, progress_of
from vqa.training.run_folder import RunFolder

TWO = FUSIONS[:2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def in_folder(folder: Path, **options: Any) -> None:
    """The ablation of a folder, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ablate(Path("grid.yaml"), **options)


def tables(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "runs/grid/ablation.json").read_bytes(), (folder / "runs/grid/ablation.md").read_bytes()


def finished_once(folder: Path) -> None:
    """No run was trained twice over: each has its epochs once, and nothing of leases is left."""
    for metrics in folder.glob("runs/grid/*/*/metrics.jsonl"):
        epochs = [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()]
        assert epochs == list(range(1, len(epochs) + 1)), metrics
    hidden = {path.name for path in folder.glob("runs/grid/**/.*")}
    assert hidden <= {".lock", ".ablated_val.json"}  # the second one is of each run, for later calls


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_three_workers_of_which_two_are_killed_end_with_the_table_of_one(
    world: Path, tmp_path: Path, seed: int
) -> None:
    one, many = (write_grid(world, tmp_path / name, epochs=4) for name in ("one", "many"))
    in_folder(one)
    choice = random.Random(seed)
    workers = [Ablate(many, log=f"{number}.log") for number in range(3)]
    left = list(workers)
    for _ in range(2):
        victim = kill_one_at_work(many, left, choice)
        left = [worker for worker in left if worker.pid != victim]
    assert left[0].ended(900) == 0, left[0].said()
    assert sorted(worker.ended() or 0 for worker in workers) == [-9, -9, 0]
    assert tables(many) == tables(one)
    finished_once(many)


def test_two_commands_at_once_share_the_runs_and_both_end_well(world: Path, tmp_path: Path) -> None:
    folder = write_grid(world, tmp_path / "grid", fusions=TWO, seeds=(0, 1), epochs=1)
    processes = [Ablate(folder, log=f"{number}.log") for number in range(2)]
    assert [process.ended() for process in processes] == [0, 0], [process.said() for process in processes]
    said = [process.said() for process in processes]
    trained = ["".join((f"{place} of 4: " in text and str(place)) or "" for place in range(1, 5)) for text in said]
    assert sorted("".join(trained)) == ["1", "2", "3", "4"]  # each in one of them
    finished_once(folder)


def test_workers_of_one_command_end_with_its_tables(world: Path, tmp_path: Path) -> None:
    """With a run that fails: its row says so, the others are done, and the exit status is 1."""
    fusions = [TWO[1], {"name": "product", "fusion_dim": 4}]
    folder = write_grid(world, tmp_path / "grid", fusions=fusions, seeds=(0,), epochs=1)
    cells = {"fine": [], "broken": ["training.optimizer.learning_rate=1e30"]}
    grid = {"name": "grid", "base": "base.yaml", "cells": cells, "set": ["training.epochs=1"]}
    (folder / "grid.yaml").write_text(json.dumps(grid))
    process = Ablate(folder, "--workers", "2", "--json", "numbers.json")
    status, said = process.ended(), process.said()
    assert status == 1 and "vqa: 1 of 2 runs failed:\ngrid/broken: the loss is not finite" in said, said
    assert "2 workers; what they print is in runs/grid/_workers" in said and "fine" in said
    numbers = json.loads((folder / "numbers.json").read_text())
    assert numbers == json.loads((folder / "runs/grid/ablation.json").read_text())
    assert numbers["runs"]["fine"] == {"done": [0], "failed": {}} and list(numbers["runs"]["broken"]["failed"]) == ["0"]
    logs = sorted(folder.glob("runs/grid/_workers/*.log"))
    assert [path.name.partition(".")[0] for path in logs] == ["worker-1-of-2", "worker-2-of-2"]


@pytest.mark.slow
def test_what_all_workers_refuse_is_said_once(world: Path, tmp_path: Path) -> None:
    folder = write_grid(world, tmp_path / "grid", fusions=[{"name": "counter"}, TWO[0]], seeds=(0,))
    process = Ablate(folder, "--workers", "2")
    status, said = process.ended(), process.said()
    assert status == 2, said
    assert said.count("this fusion asks where the regions") == 1 and "vqa: grid.yaml (counter): " in said


@pytest.mark.slow
def test_a_signal_reaches_every_worker_and_each_saves(world: Path, tmp_path: Path) -> None:
    folder = write_grid(world, tmp_path / "grid", fusions=TWO, seeds=(0,), epochs=100_000)
    process = Ablate(folder, "--workers", "2")
    assert wait_until(lambda: len(list(folder.glob("runs/grid/*/*/state.pt"))) == 2)
    process.signal(signal.SIGTERM)
    status, said = process.ended(), process.said()
    assert status == 130 and "SIGTERM: stopping" in said, said
    assert said.strip().endswith("go on with: vqa ablate grid.yaml --workers 2")
    logs = [path.read_text() for path in folder.glob("runs/grid/_workers/*.log")]
    assert all("stopping after this step, saving" in log and "go on with: vqa ablate" in log for log in logs)
    assert leases(folder) == []


def by_another(folder: Path, label: str, seed: int, **owner: object) -> Path:
    """A run that a process of another machine has."""
    path = folder / "runs/grid" / label / str(seed) / ".lease"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"host": "elsewhere", "process": 7, "word": "other"} | owner))
    return path


def test_what_others_have_is_left_to_them(world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write_grid(world, tmp_path / "grid", fusions=TWO, seeds=(0, 1), epochs=1)
    lease = by_another(folder, "concat", 0)
    in_folder(folder, wait=False)
    said = capfd.readouterr().out
    assert (
        "left to others: concat, seed 0 (process 7 on elsewhere)" in said and "3 of 4 runs are done, 1 are not" in said
    )
    assert "| concat (n = 1 of 2) |" in (folder / "runs/grid/ablation.md").read_text()
    assert json.loads((folder / "runs/grid/ablation.json").read_text())["runs"]["concat"]["done"] == [1]
    order = [
        folder / f"runs/grid/{name}/{seed}/finished.json" for seed in (0, 1) for name in ("question_only", "concat")
    ]
    order.remove(lease.with_name("finished.json"))
    assert order == sorted(order, key=lambda path: path.stat().st_mtime_ns)  # all of seed 0 before any of seed 1

    os.utime(lease, (time.time() - 300,) * 2)  # its machine has gone
    in_folder(folder)
    assert json.loads((folder / "runs/grid/ablation.json").read_text())["runs"]["concat"]["done"] == [0, 1]
    assert not lease.exists()


def test_ctrl_c_ends_the_wait_for_others(world: Path, tmp_path: Path) -> None:
    folder = write_grid(world, tmp_path / "grid", fusions=TWO[:1], seeds=(0,), epochs=1)
    by_another(folder, "question_only", 0)
    process = Ablate(folder)
    assert wait_until(lambda: "waiting for question_only, seed 0 (process 7 on elsewhere)" in process.said())
    process.signal(signal.SIGINT)
    assert process.ended(30) == 130 and "stopped by SIGINT; the same command goes on" in process.said()


HOLDER = (
    "import fcntl, sys, time\n"
    "file = open(sys.argv[1], 'w')\n"
    "fcntl.flock(file, fcntl.LOCK_EX)\n"
    "print('held', flush=True)\n"
    "time.sleep(600)\n"
)


def test_a_run_that_another_command_trains_is_waited_for(world: Path, tmp_path: Path) -> None:
    """`vqa train` asks for no lease; its lock on the folder is seen, and what it has trained is evaluated."""
    folder = write_grid(world, tmp_path / "grid", fusions=TWO[:1], seeds=(0,), epochs=1)
    run = folder / "runs/grid/question_only/0"
    run.mkdir(parents=True)
    command = [sys.executable, "-c", HOLDER, str(run / ".lock")]  # not here: what is forked would hold it, too
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        process = Ablate(folder)
        assert wait_until(lambda: "waiting for question_only, seed 0 (another command)" in process.said())
        other.kill()
    assert process.ended() == 0 and (run / "evaluation_val.json").is_file()


def test_the_tables_alone_need_nothing_but_what_is_there(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_grid(world, tmp_path / "grid", fusions=TWO, seeds=(0,), epochs=1)
    with pytest.raises(InputError, match="no run of it is evaluated yet"):
        in_folder(folder, table_only=True)
    by_another(folder, "concat", 0)
    in_folder(folder, wait=False)
    before = tables(folder)
    for path in (folder / "runs/grid/ablation.json", folder / "runs/grid/ablation.md"):
        path.unlink()
    in_folder(folder, table_only=True)
    assert tables(folder) == before and b"| concat (n = 0 of 1) | \xe2\x80\x93 |" in before[1]


KILLED = (
    "import os, pathlib, signal, sys\n"
    "from vqa.locks import Lease\n"
    "assert Lease(pathlib.Path(sys.argv[1]), progress=sys.argv[2]).take()\n"
    "os.kill(os.getpid(), signal.SIGKILL)\n"
)


def killed_at(run: Path, times: int) -> None:
    """Workers that take a run and are killed before they have saved anything."""
    run.mkdir(parents=True, exist_ok=True)
    for _ in range(times):
        command = [sys.executable, "-c", KILLED, str(run / ".lease"), progress_of(RunFolder(run))]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


def test_a_run_at_which_every_worker_is_killed_is_left_and_the_others_are_done(world: Path, tmp_path: Path) -> None:
    folder = write_grid(world, tmp_path / "grid", fusions=TWO, seeds=(0,), epochs=1)
    run = folder / "runs/grid/question_only/0"
    killed_at(run, MOST_DEATHS)
    with pytest.raises(
        FailedRunsError, match=f"question_only.*: {MOST_DEATHS} workers in a row were killed at this run"
    ):
        in_folder(folder)
    assert not (run / "metrics.jsonl").exists() and (folder / "runs/grid/concat/0/evaluation_val.json").is_file()
    in_folder(folder)  # a new call tries it again
    assert (run / "evaluation_val.json").is_file()
    finished_once(folder)


def test_deaths_between_which_something_was_saved_do_not_add_up(world: Path, tmp_path: Path) -> None:
    folder = write_grid(world, tmp_path / "grid", fusions=TWO[:1], seeds=(0,), epochs=2)
    run = folder / "runs/grid/question_only/0"
    killed_at(run, MOST_DEATHS - 1)
    (run / "state.pt").write_bytes(b"")  # saved
    killed_at(run, MOST_DEATHS - 1)
    (run / "state.pt").unlink()
    in_folder(folder)
    assert (run / "evaluation_val.json").is_file()


def test_what_failed_is_not_tried_again_by_who_was_there_and_is_by_the_next(world: Path, tmp_path: Path) -> None:
    folder = write_grid(world, tmp_path / "grid", fusions=TWO, seeds=(0,), epochs=1)
    failed = folder / "runs/grid/concat/0/failed.json"
    failed.parent.mkdir(parents=True)
    failed.write_text(json.dumps({"error": "by a worker that began later"}))
    os.utime(failed, (time.time() + 3600,) * 2)
    with pytest.raises(FailedRunsError, match="1 of 2 runs failed:\nby a worker that began later"):
        in_folder(folder)
    os.utime(failed, (time.time() - 3600,) * 2)
    in_folder(folder)
    assert not failed.exists()


def test_a_split_that_was_trained_on_is_refused_before_training(world: Path, tmp_path: Path) -> None:
    folder = write_grid(world, tmp_path / "grid", fusions=TWO, seeds=(0,), epochs=1)
    text = (folder / "grid.yaml").read_text()
    for split, said in (("train", "would be trained on 326 of 326 questions.*allow_seen"), ("test", "are hidden")):
        (folder / "grid.yaml").write_text(f"{text}split: {split}\n")
        with pytest.raises(InputError, match=rf"(?s)grid\.yaml \(question_only\): .*{said}"):
            in_folder(folder)
        assert not (folder / "runs").exists()
