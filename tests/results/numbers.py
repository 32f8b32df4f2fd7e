"""The numbers of what was run: out of run folders, into one JSON file an ablation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqa.files import read_json, write_json
from vqa.recipes import ABLATIONS_FIRST, experiment_file
from vqa.studies.grid import open_ablation
from vqa.studies.table.costs import measured_costs
from vqa.studies.table.figures import bounds, circumstances, summarise
from vqa.training.run_folder import read_evaluation

FOLDER = Path("experiments/results")
DEMO = Path("experiments/runs/demo")
ABLATIONS = (
    "attending_fusions", "batches", "batches_daquar", "daquar", "easy_vqa", "pooled_fusions", "question_encoders",
)  # fmt: skip
KEPT = ("name", "seeds", "data", "questions", "protocol", "model_choice", "cells", "floors", "ceilings", "baseline")


def collect() -> dict[str, dict[str, Any]]:
    """The numbers of every run folder that is there, by name."""
    found = {name: numbers for name in ABLATIONS if (numbers := of_ablation(name))}
    return found | ({"demo": demo} if (demo := of_demo()) else {})


def of_ablation(name: str) -> dict[str, Any] | None:
    """What an ablation's folder holds; None where there is none, or some of its runs are missing."""
    path = experiment_file(Path(f"ablations/{name}"), ABLATIONS_FIRST)
    ablation = open_ablation(path)
    if not (ablation.folder / "ablation.json").is_file():
        return None
    written = read_json(ablation.folder / "ablation.json", dict[str, Any])
    missing = [label for label, runs in written["runs"].items() if runs["done"] != written["seeds"]]
    if missing:
        print(f"{ablation.folder}: left out, as runs of {', '.join(missing)} are missing")
        return None
    differences = {
        label: one["difference"]
        for label, one in (written["statistics"].get("cells") or {}).items()
        if one["difference"]
    }
    costs = {
        label: {key: cost[key] for key in ("parameters", "forward_flops")} for label, cost in written["costs"].items()
    }
    return {
        "command": f"vqa ablate ablations/{name}",
        "repeat": f"vqa train ablations/{name} seed=S cell=…",
        **{key: written[key] for key in KEPT},
        "differences": differences,
        "costs": costs,
        "measured": measured_costs(ablation),
    }


def of_demo() -> dict[str, Any] | None:
    """What `vqa demo` left at its usual size; None where there is nothing."""
    paths = sorted(DEMO.glob("*/0/evaluation_val.json"), key=lambda path: path.stat().st_mtime)
    if not paths:
        return None
    bound = read_json(DEMO / "data" / "summary.json", dict[str, Any])["question_only_bound"]
    evaluated = {path.parents[1].name: [read_evaluation(path)] for path in paths}
    return {
        "command": "make demo",
        "repeat": "vqa train experiments/demo/….yaml",
        "name": "demo",
        "seeds": [0],
        **{key: value for key, value in circumstances(evaluated).items() if key in KEPT},
        "cells": summarise(evaluated),
        "floors": bounds(evaluated, "floors"),
        "ceilings": bounds(evaluated, "ceilings") | {"best possible without the image": {"open-ended": bound}},
        "baseline": None,
        "differences": {},
        "costs": {},
        "measured": {},
    }


def read_numbers(name: str) -> dict[str, Any]:
    """The numbers that are kept."""
    return read_json(FOLDER / f"{name}.json", dict[str, Any])


def keep(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Write them, each into its file."""
    for name, numbers in found.items():
        write_json(FOLDER / f"{name}.json", numbers)
        print(f"{FOLDER / name}.json: {len(numbers['cells'])} rows, {numbers['command']}")
