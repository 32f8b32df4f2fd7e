"""Jobs of Slurm: what is asked of it, and that jobs which are cut off are queued again and end with the same table."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml
from helpers.cluster import make_cluster, signal_step
from helpers.grids import FUSIONS, holder, leases, wait_until, write_grid
from helpers.training import PROJECT, SUBPROCESS, experiment, make_world, values

from vqa.errors import InputError
from vqa.studies.ablation import ablate
from vqa.studies.launch import Launch, launch
from vqa.studies.slurm import parse_parameters
from vqa.training.run_folder import RunFolder, load_state
from vqa.training.train import train


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("30", 30), ("30:30", 31), ("04:00:00", 240), ("10:00:01", 601), ("1-00", 1440), ("2-03:04", 3064),
     ("0-00:00:59", 1)],
)  # fmt: skip
def test_a_time_is_what_slurm_takes_it_for(text: str, minutes: int) -> None:
    """Of https://slurm.schedmd.com/sbatch.html, rounded up to minutes."""
    assert parse_parameters([f"time={text}"]) == {"time": minutes}


@pytest.mark.parametrize("text", ["partition", "=gpu", "partition=", "time=soon", "time=0", "time=4h"])
def test_a_parameter_that_is_none_is_named(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(text)):
        parse_parameters([text])


def submitted(folder: Path, cluster: dict[str, str], *parameters: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PATH", cluster["PATH"])
        patch.setenv("CLUSTER", cluster["CLUSTER"])
        assert launch(Path("grid.yaml"), ["training.epochs=1"], None, Launch(3, "slurm", parameters)) == []
    return next(Path(cluster["CLUSTER"]).glob("job-*.sh")).read_text()


@pytest.fixture
def only_recording(tmp_path: Path) -> dict[str, str]:
    """A cluster whose jobs wait in the queue for ever."""
    cluster = make_cluster(tmp_path / "cluster")
    (tmp_path / "cluster/sbatch").write_text('#!/bin/bash\ncp "$1" "$CLUSTER/job-1.sh"\necho "Submitted batch job 7"\n')
    return cluster


def test_what_is_submitted(
    world: Path, tmp_path: Path, only_recording: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_grid(world, tmp_path / "grid")
    script = submitted(folder, only_recording, "partition=gpu", "time=1:30:00", "gpus_per_node=1", "signal_delay_s=120")
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, re.MULTILINE))
    assert (asked["array"], asked["partition"], asked["time"]) == ("0-2%3", "gpu", "90")
    assert asked["signal"].endswith("@120") and "requeue" in asked and asked["gpus-per-node"] == "1"
    assert asked["job-name"] == "vqa-grid" and asked["open-mode"] == "append"
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "3 slurm jobs of 90 minutes each" in said and "7_0, 7_1, 7_2" in said
    assert "vqa ablate grid.yaml training.epochs=1 --table-only" in said


@pytest.mark.parametrize(
    ("parameters", "said"),
    [(["partitoin=gpu"], "unknown parameter 'partitoin' (did you mean 'partition'?)"), (["time=x"], "time=x: no time")],
)
def test_a_wrong_parameter_is_named_before_anything_is_submitted(
    world: Path, tmp_path: Path, only_recording: dict[str, str], parameters: list[str], said: str
) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        submitted(write_grid(world, tmp_path / "grid"), only_recording, *parameters)
    assert not list((tmp_path / "cluster").glob("job*"))


def test_what_slurm_refuses_and_where_there_is_none_are_sentences(
    world: Path, tmp_path: Path, only_recording: dict[str, str]
) -> None:
    folder = write_grid(world, tmp_path / "grid")
    (tmp_path / "cluster/sbatch").write_text("#!/bin/bash\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    with pytest.raises(InputError, match="invalid partition"):
        submitted(folder, only_recording)
    with pytest.raises(InputError, match="there is no `srun` here; start it on a login node"):
        submitted(folder, only_recording | {"PATH": "/nowhere"})


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (Launch(2, table_only=True), "--table-only runs nothing"),
        (Launch(2, parameters=["partition=gpu"]), "add --launcher slurm"),
        (Launch(2, "slurm"), "with --table-only --json"),
    ],
)
def test_options_without_a_meaning_together_are_refused(tmp_path: Path, how: Launch, said: str) -> None:
    with pytest.raises(InputError, match=said):
        launch(tmp_path / "none.yaml", [], tmp_path / "out.json", how)


def one_process(world: Path, folder: Path) -> bytes:
    write_grid(world, folder, epochs=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ablate(Path("grid.yaml"))
    return (folder / "runs/grid/ablation.json").read_bytes()


def at_work(folder: Path) -> list[int]:
    return [pid for lease in leases(folder) if (pid := holder(lease))]


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def is_done(folder: Path) -> Callable[[], bool]:
    """Whether every run of the grid is evaluated, and nobody is at work."""
    count = len(FUSIONS) * 3
    return lambda: len(list(folder.glob("runs/grid/*/*/evaluation_val.json"))) == count and not at_work(folder)


def has_ended(process: int) -> bool:
    return not Path(f"/proc/{process}/cmdline").exists()


def preempted(folder: Path, times: int, choice: random.Random) -> int:
    """Cut a job off that is at work, a number of times at random moments; how often one was."""
    done, cut = is_done(folder), 0
    while cut < times and wait_until(lambda: at_work(folder) or done()) and not done():
        time.sleep(choice.uniform(0, 0.5))
        if not (busy := at_work(folder)):
            continue
        job = parent_of(choice.choice(busy))
        for number in (signal.SIGCONT, signal.SIGUSR2):
            signal_step(job, number)
        cut += 1
        wait_until(partial(has_ended, job))
    return cut


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", "slurm"])
def test_jobs_that_are_cut_off_end_with_the_table_of_one_process(world: Path, tmp_path: Path, launcher: str) -> None:
    wanted = one_process(world, tmp_path / "one")
    folder = write_grid(world, tmp_path / "many", epochs=4)
    cluster = make_cluster(tmp_path / "cluster")
    with (tmp_path / "said").open("w") as said:  # no pipe: submitit's local jobs would hold it to their end
        submitting = subprocess.run(
            [sys.executable, "-m", "vqa", "ablate", "grid.yaml", "--workers", "3", "--launcher", launcher],
            cwd=folder, env=cluster | SUBPROCESS, stdout=said, stderr=said, timeout=600, check=False,
        )  # fmt: skip
    assert submitting.returncode == 0, (tmp_path / "said").read_text()
    cut = preempted(folder, 3, random.Random(launcher))
    assert wait_until(is_done(folder), 900) and cut
    assert wait_until(lambda: (folder / "runs/grid/ablation.json").read_bytes() == wanted, 30)
    logs = "".join(path.read_text() for path in folder.glob("runs/grid/_workers/*log*"))
    logs += "".join(path.read_text() for path in Path(cluster["CLUSTER"]).glob("task*.log"))
    assert len(re.findall("Requeued job", logs)) == cut
    assert "stopping after this step, saving" in logs
    if launcher == "slurm":
        assert (tmp_path / "cluster/requests").read_text().count("requeue 123_") == cut
    for metrics in folder.glob("runs/grid/*/*/metrics.jsonl"):
        assert [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()] == [1, 2, 3, 4]


SCRIPT = re.findall(r"```bash\n(.*?)```", (PROJECT / "docs/slurm.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("script", SCRIPT, ids=["srun", "torchrun"])
def test_the_scripts_of_the_page_are_scripts(script: str) -> None:
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1], ids=["srun", "torchrun"])
def test_the_scripts_of_the_page_queue_a_stopped_run_again(world: Path, tmp_path: Path, number: int) -> None:
    """With a small experiment in place of theirs; at its end it is the run that nothing has stopped."""
    cluster = make_cluster(tmp_path / "cluster")
    small = values(world, Path("runs"), training={"epochs": 12, "batch_size": 16})
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small))
    command = f"{sys.executable} -m vqa train small.yaml"
    script = SCRIPT[number].replace("srun vqa train san", f"srun {command}").replace("0-2", "0-0")
    script = script.replace("--nproc-per-node 4", "--nproc-per-node 1").replace("mcan_small", "small.yaml")
    script = script.replace("torchrun", f"{sys.executable} -m torch.distributed.run").replace(
        "#SBATCH --job-name=mcan", "#SBATCH --array=0-0"
    )
    (tmp_path / "job.sh").write_text(script)
    subprocess.run(["sbatch", "job.sh"], cwd=tmp_path, env=cluster | SUBPROCESS, check=True)
    folder = RunFolder(tmp_path / "runs/tiny/0")
    assert wait_until(folder.state.is_file)
    log = tmp_path / "cluster/task-0.log"
    if number == 0:
        os.kill(int((tmp_path / "cluster/step-0").read_text()), signal.SIGUSR1)
    else:
        os.kill(batch_shell(log), signal.SIGUSR1)
    assert wait_until((tmp_path / "cluster/requests").is_file), log.read_text()
    assert not folder.finished.is_file()
    assert wait_until(folder.finished.is_file), log.read_text()
    assert "resumed in epoch" in log.read_text() and "USR1" in log.read_text()
    alone = train(experiment(world, tmp_path / "alone", training={"epochs": 12, "batch_size": 16}))
    assert alone.model.read_bytes() == folder.model.read_bytes()
    assert load_state(alone.state)["progress"]["step"] == load_state(folder.state)["progress"]["step"]


def batch_shell(log: Path) -> int:
    """The shell of the job that prints into a log."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if words[0] == b"bash" and b"job-" in words[1] and (entry / "fd/1").readlink() == log:
                return int(entry.name)
        except (OSError, IndexError):
            continue
    raise AssertionError("no such shell")
