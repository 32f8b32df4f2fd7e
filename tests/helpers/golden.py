"""What the golden tests share: the stored files to work on, the command line to work with, and the comparison.

Only the command line and the files that it writes are used, because they stay when modules move.
"""

import json
import platform
import shutil
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from typer.testing import CliRunner

from vqa.cli import app

torch.set_num_threads(1)  # sums in one order, and on models this small threads only wait for each other

DATA = Path(__file__).parents[1] / "data"
OLD, GOLDEN = DATA / "old", DATA / "golden"
LOSSES = GOLDEN / "losses"
TIMES = ("seconds", "questions_per_second", "data_wait", "memory_gib")

# Share of a loss that it may move. Other processors and releases of torch order sums otherwise: with the instruction
# sets of three generations of x86 these losses moved by at most 4e-7. Of 51 changed options each moved one by 1e-4 or
# more.
LOSS_TOLERANCE = 5e-5
# An accuracy moves in jumps of a whole question, when two answers are nearly equally good: so many may turn.
QUESTIONS = 2


def vqa(*arguments: object) -> str:
    """Run one command in this process and the current folder; returns what it printed."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 0, f"vqa {' '.join(map(str, arguments))}\n{done.output}\n{done.exception!r}"
    return done.output


def copy_old_files(folder: Path) -> Path:
    """A copy of the stored files to work in, so that nothing is written among the originals."""
    return Path(shutil.copytree(OLD, folder / "old"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The epochs of a `metrics.jsonl`, without what a clock says."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [line for line in lines if "epoch" in line]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def train_recipe(values: dict[str, Any], folder: Path, **training: Any) -> list[dict[str, Any]]:
    """Train one recipe on the stored data set, which is the current folder; returns its numbers an epoch.

    Args:
        values: the experiment.
        folder: where the run goes.
        training: keys of the section of this name to change.
    """
    values = values | {"runs": str(folder), "training": values["training"] | training}
    file = folder / "experiment.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    vqa("train", file)
    return read_lines(folder / values["name"] / "0" / "metrics.jsonl")


def differences(found: Sequence[dict[str, Any]], golden: Sequence[dict[str, Any]]) -> list[str]:
    """Where an epoch's numbers are not the golden ones, beyond what rounding explains; nothing when all agree.

    Every golden number must be there; a later version may write more.
    """
    if len(found) != len(golden):
        return [f"{len(found)} epochs, golden {len(golden)}"]
    wrong = []
    for one, other in zip(found, golden, strict=True):
        for key, expected in other.items():
            value = one.get(key)
            if isinstance(expected, str) or value is None:
                agrees = value == expected
            else:
                agrees = abs(value - expected) <= allowed(key, expected)
            if not agrees:
                wrong.append(f"epoch {other['epoch']}, {key}: {value!r}, golden {expected!r}")
    return wrong


def allowed(key: str, expected: float) -> float:
    """How far a number may be from its golden value."""
    match key.split("/"):
        case ["epoch" | "step"]:
            return 0.0
        case ["learning_rate"]:
            return 1e-9 * expected
        case ["train", "loss"]:
            return LOSS_TOLERANCE * expected
        case ["train", "soft_score"]:
            return 100 * QUESTIONS / sum(questions("train").values())
        case ["val", _, "overall"]:
            return 100 * QUESTIONS / sum(questions("val").values()) + 0.01  # accuracies have two decimals
        case ["val", _, *answer_type]:
            return 100 * QUESTIONS / questions("val")["/".join(answer_type)] + 0.01
    raise AssertionError(f"{key}: say here how far this number may move")


@cache
def questions(split: str) -> Counter[str]:
    """How many questions of each answer type the stored data set has."""
    file = json.loads((OLD / f"data/v2_mscoco_{split}2014_annotations.json").read_text(encoding="utf-8"))
    return Counter(row["answer_type"] for row in file["annotations"])


def torch_version() -> tuple[int, int]:
    """Major and minor version of torch."""
    major, minor, *_ = torch.__version__.split(".")
    return int(major), int(minor)


def losses_file() -> Path:
    """Where the golden losses of this torch and this kind of machine belong."""
    return LOSSES / f"torch-{'.'.join(map(str, torch_version()))}-{platform.machine()}.json"


def golden_losses() -> dict[str, Any]:
    """The golden losses of this torch and kind of machine; where there are none, the newest ones there are."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(LOSSES.glob("torch-*.json"))]
    here = [".".join(map(str, torch_version())), platform.machine()]
    exact = [file for file in files if [file["torch"], file["machine"]] == here]
    newest = sorted(
        files, key=lambda file: ([int(part) for part in file["torch"].split(".")], file["machine"] == here[1])
    )
    return (exact or newest)[-1]
