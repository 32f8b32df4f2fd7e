"""What a piece of work takes in a process of its own: its time, and a peak memory in which nothing else has a part."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from vqa.bench.child import TRAINING
from vqa.errors import InputError
from vqa.files import write_json
from vqa.progress import progress_bar


@dataclass(frozen=True)
class Cost:
    """What a piece of work took.

    Attributes:
        seconds: elapsed.
        cpu_seconds: of the processor; steadier than `seconds` on a busy machine.
        peak_bytes: the largest main memory of the process, the interpreter and its modules included.
        device_peak_bytes: the most that torch's allocator held on a GPU; None where none was used.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    device_peak_bytes: int | None = None


def measure_alone(way: str, folder: Path, cache: Path | None = None) -> Cost:
    """Run one of `vqa.bench.child`'s ways in a process of its own.

    Args:
        way: a key of its `WAYS`.
        folder: where the files are that it works on.
        cache: where columns that were read are kept; None leaves the user's own.

    Raises:
        InputError: the work failed; the message ends with the process's last line.
    """
    environment = os.environ | ({} if cache is None else {"VQA_CACHE": str(cache)})
    command = [sys.executable, "-m", "vqa.bench.child", way, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"its process ended with status {done.returncode}"]
        raise InputError(f"{folder}: `{' '.join(command[1:4])}` failed: {said[-1]}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def measure_ways(ways: Mapping[str, str], folder: Path, repeat: int) -> dict[str, Cost]:
    """What each way took: the median of its times, and its greatest memory.

    Args:
        ways: the child's ways, by the names that they are reported under; one after the other, so that a later one
            finds the columns that an earlier one of the same turn has kept.
        folder: where the files are that all of them work on.
        repeat: how often all of them are measured; each turn begins without kept columns.
    """
    measured: dict[str, list[Cost]] = {name: [] for name in ways}
    with TemporaryDirectory(prefix="vqa-bench-") as caches, progress_bar() as bar:
        task = bar.add_task("measuring", total=repeat * len(ways), note="")
        for turn in range(repeat):
            for name, way in ways.items():
                bar.update(task, note=name)
                measured[name].append(measure_alone(way, folder, Path(caches, str(turn))))
                bar.advance(task)
    return {name: _median(costs) for name, costs in measured.items()}


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        median(one.seconds for one in costs),
        median(one.cpu_seconds for one in costs),
        max(one.peak_bytes for one in costs),
        max((one.device_peak_bytes for one in costs if one.device_peak_bytes is not None), default=None),
    )


def peak_of_training(cache: Path, device: str, questions: int, batch_size: int) -> Cost:
    """What a process takes for a few steps of stacked attention on a cache, its table where the model computes.

    Raises:
        InputError: the process failed, for instance because the table does not fit there.
    """
    with TemporaryDirectory(prefix="vqa-bench-") as folder:
        told = {"cache": str(cache), "device": device, "questions": questions, "batch_size": batch_size}
        write_json(Path(folder, TRAINING), told)
        return measure_alone("train", Path(folder))
