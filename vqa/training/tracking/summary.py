"""The numbers that stand for a whole run: those of the epoch whose weights are kept, and of its evaluations."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqa.training.run_folder import RunFolder, is_step, read_evaluation, read_metrics

CHOOSES = "val/open_ended/overall"  # the best epoch is the first with the highest
OF_KEPT = ("val/", "train/")  # what the summary has of the kept epoch; of everything else it has the last value
BOUNDS = ("floors", "ceilings")


def kept_values(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the summary has of the epoch whose weights are kept, by its line of metrics.jsonl."""
    return {name: value for name, value in row.items() if name.startswith(OF_KEPT)} | {"kept_epoch": row["epoch"]}


def best_values(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the summary has of the best epoch on the validation split, whether its weights are kept or not."""
    return {"best_epoch": row["epoch"], "best_open_ended": row[CHOOSES], "protocol": row["val/protocol"]}


def summary_of(folder: Path, *, keep: str) -> dict[str, Any]:
    """The whole summary as the files of a run folder have it, so that a later part of a run never lacks any of it.

    Args:
        keep: `training.keep`, the epoch whose weights are kept: "best" or "last".

    Raises:
        InputError: one of the files is damaged.
    """
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if not is_step(row)]
    best = max((row for row in rows if CHOOSES in row), key=lambda row: row[CHOOSES], default=None)
    kept = best if keep == "best" else rows[-1] if rows else None
    found = (kept_values(kept) if kept else {}) | (best_values(best) if best else {})
    for path in sorted(folder.glob("evaluation_*.json")):
        found |= evaluation_values(path.stem.removeprefix("evaluation_"), read_evaluation(path))
    return found


def evaluation_values(split: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """What the summary has of an evaluation: accuracies in percent by task and answer type, floors, ceilings, protocol.

    Args:
        found: the content of `evaluation_<split>.json`.
    """
    values: dict[str, Any] = {}
    for task, accuracy in found["accuracy"].items():
        values[f"{task}/overall"] = accuracy["overall"]
        values |= {f"{task}/{kind}": value for kind, value in accuracy["per_answer_type"].items()}
    for bound in BOUNDS:
        for name, tasks in (found.get(bound) or {}).items():
            values |= {f"{bound}/{plain(name)}/{task}": score["overall"] for task, score in tasks.items() if score}
    if beyond := found.get("beyond_accuracy"):
        values["calibration_error"] = beyond["calibration"]["ece"]
    values |= {"questions": found["questions"], "protocol": found["protocol"]}
    if stamp := found["seen_in_training"]["stamp"]:
        values["seen_in_training"] = stamp
    return {f"evaluation/{split}/{name}": value for name, value in values.items()}


def plain(name: str) -> str:
    """A name in letters, digits and "_".

    >>> plain("random choice (expected)")
    'random_choice_expected'
    """
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")


def run_folder_files(folder: RunFolder, split: str) -> dict[str, Path]:
    """What an evaluation has left in a run folder, by file name."""
    paths = [
        folder.evaluation(split),
        *sorted(folder.path.glob(f"results_{split}_*.json")),
        folder.path / "report.html",
    ]
    return {path.name: path for path in paths if path.is_file()}
