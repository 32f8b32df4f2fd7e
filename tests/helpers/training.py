"""A small synthetic data set with made-up features, and the smallest experiments over it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from vqa.data.dataset import ImageTable
from vqa.data.formats import read_dataset
from vqa.data.synthetic import generate_dataset
from vqa.experiment import Experiment, check_experiment
from vqa.features.cache.writer import CacheWriter
from vqa.runtime.stopping import StopRequest
from vqa.testing.batches import random_boxes
from vqa.training import train as loop
from vqa.training.run_folder import RunFolder, load_state, read_metrics

torch.set_num_threads(1)  # on models this small threads only wait for each other

SCENES, PIXELS = 60, 64
REGIONS, CHANNELS = 4, 6
TRAINING = {
    "epochs": 2,
    "batch_size": 64,
    "precision": "float32",
    "device": "cpu",
    "optimizer": {"learning_rate": 0.01},
}
STACKED = {"name": "stacked_attention", "hops": 1, "attention_dim": 8}
TIMES = (
    "seconds", "questions_per_second", "data_wait", "memory_gib",
    "step/questions_per_second", "step/data_wait", "step/memory_gib",
)  # fmt: skip
PROJECT = Path(__file__).parents[2]
SUBPROCESS = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "COLUMNS": "200", "PYTHONPATH": str(PROJECT)}


def attributes(channels: int = CHANNELS) -> dict[str, Any]:
    """What a cache of made-up features states."""
    return {
        "encoder": "noise", "layer": "map", "image_size": PIXELS, "weights_sha256": f"{channels:064d}",
        "weights_origin": "made up", "preprocessing": {"resize": "squash"}, "command": "none",
    }  # fmt: skip


def write_cache(
    path: Path, images: ImageTable, *, seed: int = 0, nan_rows: tuple[int, ...] = (), channels: int = CHANNELS,
    boxes: bool = False, digests: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """A feature cache of normally distributed numbers, some rows NaN, some regions padding in boxes where asked.

    The digests of the files are zeros, which stand for none, unless they are given.
    """
    feature_NRC = torch.randn(len(images.ids), REGIONS, channels, generator=torch.Generator().manual_seed(seed))
    feature_NRC[list(nan_rows)] = torch.nan
    rows = np.arange(len(images.ids))
    count_N = torch.from_numpy(1 + rows % REGIONS) if boxes else None
    box_NR4 = random_boxes(len(rows), REGIONS) if boxes else None
    where = ["region_count", "boxes"] if boxes else []
    with CacheWriter(path, images, attributes(channels), REGIONS, channels, where=where) as writer:
        writer.write(rows, feature_NRC, list(digests or ["0" * 64] * len(rows)), count_N, box_NR4)


def all_images(root: Path) -> ImageTable:
    """The images of the three synthetic splits."""
    tables = [read_dataset("vqa_v2", root, split).images for split in ("train", "val", "test")]
    return ImageTable(
        tuple(name for table in tables for name in table.ids), tuple(path for table in tables for path in table.paths)
    )


def make_world(folder: Path) -> Path:
    """Generate the data set into `folder`/data and write `folder`/cache.h5; returns `folder`."""
    generate_dataset(folder / "data", SCENES, 0, "real", PIXELS)
    write_cache(folder / "cache.h5", all_images(folder / "data"))
    return folder


def values(world: Path, runs: Path, **changes: Any) -> dict[str, Any]:
    """An experiment over `world` as plain values; sections given in `changes` are merged into the small ones."""
    base: dict[str, Any] = {
        "name": "tiny",
        "runs": str(runs),
        "data": {"format": "vqa_v2", "root": str(world / "data")},
        "features": {"cache": str(world / "cache.h5")},
        "question_encoder": {"name": "lstm", "embedding_dim": 8, "hidden_dim": 8, "layers": 1, "sentence_dim": 12},
        "fusion": STACKED,
        "classifier": {"dropout": 0.3},
        "training": TRAINING,
    }
    for key, value in changes.items():
        merge = isinstance(value, dict) and key not in ("fusion", "loss") and isinstance(base.get(key), dict)
        base[key] = base[key] | value if merge else value
    return base


def experiment(world: Path, runs: Path, **changes: Any) -> Experiment:
    """The same, checked."""
    return check_experiment(values(world, runs, **changes), "test")


def run_python(*arguments: str, cwd: Path | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run this Python with arguments in a process of its own."""
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, timeout=timeout,
        env=os.environ | SUBPROCESS,
    )  # fmt: skip


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content, to see whether anything was changed."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def timeless_metrics(folder: RunFolder) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in read_metrics(folder.metrics)]


def assert_same_run(one: RunFolder, two: RunFolder) -> None:
    """Best weights, last weights, optimiser and numbers, bit for bit."""
    assert one.model.read_bytes() == two.model.read_bytes()
    assert timeless_metrics(one) == timeless_metrics(two)
    states = [load_state(folder.state) for folder in (one, two)]
    assert states[0].pop("vocabulary") == states[1].pop("vocabulary")
    assert states[0]["progress"].pop("shuffle") == states[1]["progress"].pop("shuffle")
    for state in states:
        del state["progress"]["seconds"]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0, equal_nan=True)


@contextmanager
def after_step(step: int, act: Callable[[], object]) -> Iterator[None]:
    """Do something in the middle of a training: when the optimisers have taken so many steps between them."""
    steps = count(1)

    def look(*_: object) -> None:
        if next(steps) == step:
            act()

    hook = register_optimizer_step_post_hook(look)
    try:
        yield
    finally:
        hook.remove()


def interrupted_after(step: int) -> AbstractContextManager[None]:
    """A real Ctrl-C after so many steps."""
    return after_step(step, lambda: os.kill(os.getpid(), signal.SIGINT))


def dies_in_step(patch: pytest.MonkeyPatch, number: int) -> None:
    """The process dies in the step of that number, counted over all runs; it saves after every second one."""
    steps, taken = loop.step_once, count(1)

    def step_or_die(*arguments: Any) -> None:
        if next(taken) == number:
            raise KeyboardInterrupt
        steps(*arguments)

    patch.setattr(loop, "SAVE_EVERY", -1)
    patch.setattr(loop, "READ_EVERY", 2)
    patch.setattr(loop, "step_once", step_or_die)


@contextmanager
def forgetting_imports(folder: Path) -> Iterator[None]:
    """What is imported from a folder meanwhile is forgotten afterwards, and so are changes of the path."""
    path, modules = list(sys.path), set(sys.modules)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


class StopAfter(StopRequest):
    """A stop request that comes true at a number of looks: one a step, one an epoch."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def asked(self) -> bool:  # type: ignore[override]
        self.looks -= 1
        return self.looks < 0
