"""How sure the differences of an ablation are: every cell against its baseline, and intervals by type of question.

This reads a results file a run, so it is done when the last run is, and kept in `ablation.json` for as long as the
weights that answered are the same. Legend: `S` seeds, `N` questions.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import QADataset
from vqa.errors import InputError
from vqa.evaluation.statistics.differences import Difference, compare_systems
from vqa.studies.comparison.compare import CompareOptions, read_cells
from vqa.studies.grid import Ablation
from vqa.studies.table.figures import Evaluated
from vqa.training.run_folder import RunFolder

MOST_TYPES = 8  # kinds of questions that the page has bars for


def of_runs(ablation: Ablation, evaluated: Evaluated) -> str:
    """A digest of all that the statistics depend on: the baseline, and which weights each run has."""
    runs = [[label, run["seed"], run["weights_sha256"]] for label, of_cell in evaluated.items() for run in of_cell]
    found = [1, ablation.file.baseline, ablation.file.split, ablation.file.allow_seen, ablation.file.exclude_seen, runs]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def statistics_of(ablation: Ablation, evaluated: Evaluated) -> dict[str, Any]:
    """The numbers for `ablation.json`.

    Returns:
        `cells`: by label, mean, deviation, runs, and with a baseline the difference from it; `types`: by type of
        question, the number of questions and by label mean, low and high, the ends of the 95% interval; `left_out`: why
        there are none, or "".
    """
    baseline = ablation.file.baseline
    found: dict[str, Any] = {"of": of_runs(ablation, evaluated), "baseline": baseline, "cells": {}, "types": {}}
    try:
        if baseline is not None and not evaluated[baseline]:
            raise InputError(f"the baseline {baseline} has no run yet")
        options, paths = options_of(ablation), runs_of(ablation, evaluated)
        dataset, accuracies = read_cells(paths, options)
        first = baseline or next(iter(accuracies))
        # without a baseline nothing is compared
        chosen = accuracies if baseline is not None else {first: accuracies[first]}
        compared = compare_systems(chosen, dataset.image_row_N, first, options.sampling)
    except InputError as error:
        return {**found, "left_out": str(error)}
    found["level"] = options.sampling.level
    found["cells"] = {
        label: {
            "mean": one.mean, "deviation": one.deviation, "runs": one.seeds,
            "difference": one.against
            and one.against.as_json() | {"sure": is_sure(one.against, options.sampling.level)},
        }
        for label, one in (compared.items() if baseline is not None else ())
    }  # fmt: skip
    found["types"] = _by_type(dataset, accuracies)
    return {**found, "left_out": ""}


def options_of(ablation: Ablation, examples: int = 0) -> CompareOptions:
    """How the runs of an ablation are compared."""
    file = ablation.file
    return CompareOptions(
        split=file.split, allow_seen=file.allow_seen, exclude_seen=file.exclude_seen, allow_code=True, examples=examples
    )


def runs_of(ablation: Ablation, evaluated: Evaluated) -> dict[str, list[Path]]:
    """By cell, the folders of the runs that are evaluated."""
    return {
        cell.label: [
            RunFolder(experiment.folder).path
            for experiment in cell.experiments
            if experiment.seed in {run["seed"] for run in evaluated[cell.label]}
        ]
        for cell in ablation.cells
    }


def is_sure(one: Difference, level: float) -> bool:
    """Whether the interval excludes 0, and p, corrected for all cells, says so too."""
    return one.sure and one.p_holm is not None and one.p_holm <= 1 - level + 1e-12


def _by_type(dataset: QADataset, accuracies: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Mean and interval of every cell on the most frequent question types; on answer types where there are none."""
    everything = {label: _interval(found_SN, dataset.image_row_N) for label, found_SN in accuracies.items()}
    found: dict[str, Any] = {"all": {"questions": len(dataset), "cells": everything}}
    column = dataset.question_type if dataset.question_type is not None else dataset.answer_type
    if column is None:
        return found
    count_T = np.bincount(column.codes[column.codes >= 0], minlength=len(column.distinct))
    for code in np.argsort(-count_T, kind="stable")[:MOST_TYPES]:
        if count_T[code]:
            rows_N = column.codes == code
            image_row_N = dataset.image_row_N[rows_N]
            cells = {label: _interval(found_SN[:, rows_N], image_row_N) for label, found_SN in accuracies.items()}
            found[column.distinct[code]] = {"questions": int(count_T[code]), "cells": cells}
    return found


def _interval(accuracy_SN: NDArray[np.float64], image_row_N: NDArray[np.integer]) -> dict[str, float | None]:
    """Mean and Student's 95% interval over images, in percent, of these trained models; no ends with fewer than two."""
    from scipy import stats

    mean_N = accuracy_SN.mean(axis=0)
    mean = float(mean_N.mean())
    image_N = np.unique(image_row_N, return_inverse=True)[1]
    rest_I = np.bincount(image_N, weights=mean_N - mean)
    images = len(rest_I)
    if images < 2:
        return {"mean": 100 * mean, "low": None, "high": None}
    error = math.sqrt(images / (images - 1) * float((rest_I**2).sum())) / len(mean_N)
    half = error * float(stats.t.ppf(0.975, images - 1))
    return {"mean": 100 * mean, "low": 100 * max(0.0, mean - half), "high": 100 * min(1.0, mean + half)}
