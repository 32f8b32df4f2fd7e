"""One figure of several folds: every question is answered by the run that did not train on it.

Legend: `N` questions of all folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import QADataset
from vqa.data.holdout import IMAGE, group_codes, parts
from vqa.errors import InputError
from vqa.evaluation.accuracy import Protocol, Score, score, summarise
from vqa.evaluation.diagnose import confidence_interval
from vqa.evaluation.results import Task, read_results
from vqa.experiment import Experiment, weights_chosen
from vqa.training.inputs.splits import column_reader, file_contents, read_split, read_training_splits
from vqa.training.run_folder import RunFolder, open_run


@dataclass(frozen=True)
class PooledFolds:
    """The accuracy over all folds of a data set.

    Attributes:
        data: what was divided into folds.
        score: over all questions of the folds.
        low, high: 95% interval of the overall accuracy in percent, a bootstrap over what the folds keep together
            (images, or groups of them); it does not know how much runs of another seed would differ.
        fold_N: int64, the fold of each question.
        cluster_N: int64, what each question was kept together with.
        per_fold: percent, the accuracy of each fold's own run.
        weights: how the weights were chosen, a sentence.
    """

    data: str
    score: Score
    low: float | None
    high: float | None
    fold_N: NDArray[np.int64]
    cluster_N: NDArray[np.int64]
    per_fold: tuple[float, ...]
    weights: str

    def as_json(self) -> dict[str, Any]:
        """In percent."""
        return {
            "data": self.data,
            "questions": len(self.fold_N),
            "protocol": self.score.protocol,
            "overall": self.score.overall,
            "interval_95": [self.low, self.high],
            "per_fold": list(self.per_fold),
            "per_answer_type": self.score.per_answer_type,
            "per_question_type": self.score.per_question_type,
            "weights": self.weights,
        }


def pool_folds(runs: Sequence[Path], task: Task = "open-ended", protocol: Protocol = "2021") -> PooledFolds:
    """Pool runs that differ by `data.holdout.fold` alone, one a fold, each evaluated on what it held out (`val`).

    Their answers are taken from the results files that `vqa evaluate RUN` wrote.

    Raises:
        InputError: the runs are not the folds of one experiment, a fold is missing or twice, or one is not evaluated.
    """
    opened = [(folder, experiment, recorded) for folder, experiment, recorded in map(open_run, runs)]
    _require_folds(opened)
    opened.sort(key=lambda one: one[1].data.held_out.fold if one[1].data.held_out else 0)
    held = [read_split(experiment, "val", recorded) for _, experiment, recorded in opened]
    whole = replace(read_training_splits(opened[0][1].data), spelling=opened[0][1].answers.normalise)
    row_of = {int(question): row for row, question in enumerate(whole.question_id_N)}
    accuracy_N, fold_N = np.full(len(whole), np.nan), np.full(len(whole), -1)
    per_fold = []
    for (folder, experiment, _), dataset in zip(opened, held, strict=True):
        results = folder.results("val", task)
        if not results.is_file():
            raise InputError(f"{results}: no such file; vqa evaluate {folder.path} writes it")
        own = score(dataset, read_results(results, dataset, task), protocol)
        rows = [row_of[int(question)] for question in dataset.question_id_N]
        assert experiment.data.held_out is not None
        accuracy_N[rows], fold_N[rows] = own.accuracy_N, experiment.data.held_out.fold
        per_fold.append(own.overall)
    cluster_N = _clusters(opened[0][1], whole)
    low, high = confidence_interval(accuracy_N, cluster_N)
    weights = weights_chosen(opened[0][1], of_one_run=False)
    pooled = summarise(whole, accuracy_N, protocol)
    return PooledFolds(whole.name, pooled, low, high, fold_N, cluster_N, tuple(per_fold), weights)


def _clusters(experiment: Experiment, whole: QADataset) -> NDArray[np.int64]:
    """What each question is kept together with in every fold."""
    holdout = experiment.data.held_out
    assert holdout is not None
    group_N = None
    if holdout.by != IMAGE:
        group_N = group_codes(whole, holdout.by, column_reader(experiment.data, holdout))
    return parts(whole, group_N, file_contents(experiment, whole.images))[whole.image_row_N]


def _require_folds(opened: Sequence[tuple[RunFolder, Experiment, dict[str, Any]]]) -> None:
    """Raises InputError unless the runs are every fold of one experiment, once each."""
    first, seen = opened[0][1], []
    for folder, experiment, recorded in opened:
        holdout = experiment.data.held_out
        if holdout is None or holdout.folds is None:
            raise InputError(f"{folder.path}: not a run of a fold (data.holdout.folds)")
        if _without_fold(experiment) != _without_fold(first):
            raise InputError(f"{folder.path}: differs from {opened[0][0].path} in more than data.holdout.fold")
        if recorded["data"] != opened[0][2]["data"]:
            raise InputError(f"{folder.path}: was trained on other contents of the files than {opened[0][0].path}")
        seen.append(holdout.fold)
    folds = first.data.held_out.folds if first.data.held_out and first.data.held_out.folds else 0
    if sorted(seen) != list(range(folds)):
        raise InputError(f"{opened[0][0].path}: {folds} folds need one run each; these are of {sorted(seen)}")


def _without_fold(experiment: Experiment) -> dict[str, Any]:
    """All that runs of one experiment's folds have in common."""
    values = experiment.resolved()
    for key in ("name", "runs", "tracking"):
        del values[key]
    del values["data"]["holdout"]["fold"]
    return values
