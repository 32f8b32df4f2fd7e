"""The peak memory of training, measured in a process of its own."""

import subprocess
import sys
from pathlib import Path

import torch

from vqa.bench.ours import STACKED_ATTENTION, begin, spread, take_steps
from vqa.bench.synthetic import make_questions, prepare_synthetic
from vqa.errors import InputError
from vqa.features.cache.reader import FeatureCache
from vqa.runtime.device import choose_machine
from vqa.runtime.memory import peak_memory
from vqa.training.inputs.batches import Batch, batches

STEPS = 6


def peak_of_training(cache: Path, device: torch.device, questions: int, batch_size: int) -> int:
    """Peak bytes of a process that takes a few steps of stacked attention on a cache, interpreter and torch included.

    Raises:
        InputError: the process failed.
    """
    given = f"{str(cache)!r}, {device.type!r}, {questions}, {batch_size}"
    code = f"from vqa.bench.memory import train_and_say; train_and_say({given})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"training on {cache} for its memory failed: {done.stderr.strip().splitlines()[-1]}")
    return int(done.stdout.split()[-1])


def train_and_say(cache: str, device: str, questions: int, batch_size: int) -> None:
    """Train a little and print the peak memory of this process in bytes."""
    opened = FeatureCache(Path(cache))
    machine = choose_machine(device)
    prepared = prepare_synthetic(make_questions(questions, len(opened)), opened, machine, None)
    todo = batches(prepared.train_questions, batch_size, 0, 0)
    take_steps(begin(prepared, STACKED_ATTENTION, batch_size), [*spread(todo, STEPS), max(todo, key=_longest)])
    print(peak_memory())


def _longest(batch: Batch) -> int:
    return batch.longest
