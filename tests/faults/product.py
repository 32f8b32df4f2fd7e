"""What a command made, without times and paths: equal for a run that was disturbed and one that was not."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from faults.case import UndisturbedError, nothing
from faults.run import command, run
from faults.world import ENCODER, EXTRACT, HALF, RUN
from vqa.recipes import recipes

TIMES = (
    "seconds", "questions_per_second", "data_wait", "memory_gib", "step/questions_per_second", "step/data_wait",
    "step/memory_gib", "date", "wandb_id",
)  # fmt: skip
LONG = ["train", "e.yaml", "name=long", "training.epochs=4", "training.batch_size=8"]
WORK: dict[str, list[str]] = {
    "train": LONG,
    "resume": ["train", "half.yaml", "--resume"],
    "ablate": ["ablate", "a.yaml"],
    "extract": [*EXTRACT[:6], "--split", "train", "--split", "val", *ENCODER, "--workers", "1", "--no-compile",
                "--batch-size", "4", "--out", "new.h5"],
    "import": ["features", "import", "peer", "--from", "openvqa", "--out", "imported.h5"],
    "fisher": ["features", "fisher", "cache.h5", "--out", "fisher.h5", "--components", "2", "--dimensions", "2"],
    "evaluate": ["evaluate", RUN],
    "submit": ["submit", RUN, "--split", "test"],
    "generate": ["data", "generate", "synthetic", "--scenes", "60", "--size", "48"],
    "demo": ["demo", "--out", "demo", "--scenes", "50"],
}  # fmt: skip
MADE = {
    "train": ("runs/long/0",), "resume": (HALF,), "ablate": ("runs/grid",), "extract": ("new.h5",),
    "import": ("imported.h5",), "fisher": ("fisher.h5",), "evaluate": (RUN,), "submit": (f"{RUN}/submission",),
    "generate": ("synthetic",), "demo": ("demo",),
}  # fmt: skip


def product(folder: Path, name: str) -> dict[str, str]:
    """What the command of this name made below a folder: digests by path."""
    found = {}
    for place in MADE[name]:
        top = folder / place
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and (digest := _digest(path)):
                found[str(path.relative_to(folder))] = digest
    return found


def _digest(path: Path) -> str:
    """Of what a file says; "" for files that say times, paths and machines."""
    if path.suffix == ".h5":
        return _features(path)
    if path.name == "metrics.jsonl":
        return repr([_timeless(json.loads(line)) for line in path.read_text().splitlines()])
    if path.name in ("finished.json", "summary.json") or path.name.startswith("evaluation_"):
        return repr(_timeless(json.loads(path.read_text())))
    if path.name in (
        "state.pt",
        "experiment.yaml",
        "environment.json",
        "report.html",
        "tracking.json",
        "ablation.html",
    ):
        return ""
    if path.name.startswith(".") or path.suffix in (".md", ".csv", ".tex", ".zip"):
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def _features(path: Path) -> str:
    import h5py

    digest = hashlib.sha256()
    with h5py.File(path) as file:
        for name in ("features", "image_id", "done", "image_digest"):
            digest.update(file[name][()].tobytes())
    return digest.hexdigest()


def peer(folder: Path) -> None:
    """Features of another project, to be imported."""
    import numpy as np

    (folder / "peer").mkdir(exist_ok=True)
    for number in range(200):
        np.savez(folder / f"peer/{number}.npz", x=np.random.default_rng(number).normal(size=(64, 9)).astype("f4"))


def small_demo(folder: Path) -> None:
    """The recipes of the demo for a small encoder and one epoch, where the demo looks first."""
    for recipe in recipes():
        if not recipe.name.startswith("demo/"):
            continue
        value = yaml.safe_load(recipe.path.read_text())
        value["features"] |= {"encoder": "squeezenet1_1", "layer": "features.4", "image_size": 64}
        value["training"]["epochs"] = 1
        path = folder / "experiments" / f"{recipe.name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(value))


PREPARE: dict[str, Callable[[Path], None]] = {"import": peer, "demo": small_demo}


def prepare(name: str) -> Callable[[Path], object]:
    """What must be there before the command of this name."""
    return PREPARE.get(name, nothing)


class Undisturbed:
    """What each command makes when nothing happens, and how long that takes; found once each."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[dict[str, str], float]] = {}

    def of(self, name: str, fresh: Callable[[], Path]) -> tuple[dict[str, str], float]:
        if name not in self.known:
            folder = fresh()
            ended = run(command(WORK[name]), folder, 300)
            if ended.status != 0:
                raise UndisturbedError(f"undisturbed, {name} ends so, too: {ended.err.decode(errors='replace')[-150:]}")
            self.known[name] = product(folder, name), ended.seconds
        return self.known[name]


undisturbed = Undisturbed()
