"""The figures of an ablation: every accuracy of every cell with its mean and deviation over seeds, floors, ceilings."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

OPEN_ENDED = "open-ended"  # the figure that cells are compared by
TITLES = (("open_ended", OPEN_ENDED), ("multiple_choice", "multiple-choice"))
Evaluated = Mapping[str, list[dict[str, Any]]]  # by cell, the evaluations of its runs


def summarise(evaluated: Evaluated, slices: Iterable[str] = ()) -> dict[str, Any]:
    """Mean and standard deviation (n - 1; None for one seed) over seeds of every accuracy of every cell."""
    wanted = list(slices)
    cells: dict[str, Any] = {}
    for label, evaluations in evaluated.items():
        figures: dict[str, list[float]] = {}
        for evaluation in evaluations:
            for name, value in (flat_accuracies(evaluation) | slice_accuracies(evaluation, wanted)).items():
                figures.setdefault(name, []).append(value)
        cells[label] = {
            name: {
                "mean": statistics.fmean(values),
                "std": statistics.stdev(values) if len(values) > 1 else None,
                "runs": values,
            }
            for name, values in figures.items()
        }
    return cells


def flat_accuracies(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Both tasks' accuracies as "open-ended", "open-ended, number", …, in percent.

    They are not rounded, except those of an evaluation by an earlier version, which has them with two decimals.
    """
    return _flat(evaluation["accuracy"] | (evaluation.get("unrounded") or {})) | _near_answers(evaluation)


def _near_answers(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """WUPS at each threshold and the accuracy of lists, where an ablation's file or `--wordnet` asked for them."""
    found = evaluation.get("near_answers") or {}
    if not found.get("wups"):
        return {}
    wups = {f"near answers, WUPS at {threshold}": value for threshold, value in found["wups"].items()}
    return {"near answers, list accuracy": found["list_accuracy"], **wups}


def _flat(by_task: Mapping[str, Any]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for key, title in TITLES:
        accuracy = by_task.get(key)
        if accuracy is not None:
            flat[title] = accuracy["overall"]
            flat |= {f"{title}, {kind}": value for kind, value in accuracy["per_answer_type"].items()}
    return flat


def slice_accuracies(evaluation: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """Open-ended accuracies in percent of the named slices that hold a question, as "slice: count"."""
    found = {one["name"]: one["accuracy"] for one in evaluation["beyond_accuracy"]["slices"]} if names else {}
    return {slice_figure(name): found[name] for name in names if found[name] is not None}


def slice_figure(name: str) -> str:
    """What a slice is called among the figures."""
    return f"slice: {name}"


def bounds(evaluated: Evaluated, kind: str) -> dict[str, dict[str, float]]:
    """Floors or ceilings by name, each with its figures in percent; of runs that differ in one, the highest.

    Args:
        kind: "floors" or "ceilings".
    """
    found: dict[str, dict[str, float]] = {}
    for run in every_run(evaluated):
        for name, by_task in (run.get(kind) or {}).items():
            known = found.setdefault(name, {})
            for figure, value in _flat(by_task).items():
                known[figure] = max(value, known.get(figure, value))
    return found


def every_run(evaluated: Evaluated) -> list[dict[str, Any]]:
    """The evaluations of all cells."""
    return [run for cell in evaluated.values() for run in cell]


def circumstances(evaluated: Evaluated) -> dict[str, Any]:
    """What the numbers are of: split, protocol, and what of it the runs were trained or chosen on."""
    every = every_run(evaluated)
    return {
        "data": every[0]["data"],
        "questions": every[0]["questions"],
        "protocol": every[0]["protocol"],
        "seen_in_training": sorted({stamp for run in every if (stamp := run["seen_in_training"]["stamp"])}),
        "model_choice": sorted({choice for run in every if (choice := run["model_choice"])}),
    }
