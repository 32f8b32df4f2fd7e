"""VizWiz's second task (Gurari et al. 2018): can the question be answered from the image?

Legend: `N` questions.
"""

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import ABSENT, QADataset, Strings
from vqa.data.formats.decode import decode_file
from vqa.text.normalise import normalise

UNANSWERABLE = frozenset({"unanswerable", "unsuitable", "unsuitable image"})


class _Record(msgspec.Struct, gc=False):
    image: str
    answerable: int | None = None


def answerability(
    path: Path, dataset: QADataset, predictions: Strings, score_N: NDArray[np.float64] | None
) -> tuple[dict[str, float], dict[str, str]]:
    """Average precision and F1 of "answerable", 0..1, and what each figure that is missing needs.

    Args:
        path: VizWiz's annotations; each record has `image` and `answerable`, 0 or 1.
        dataset: the questions that were answered.
        predictions: `[N]`; one that says "unanswerable" or "unsuitable" stands for 0.
        score_N: float64, greater where the question is likelier to be answerable, such as 1 - probability of
            "unanswerable"; None where the results file has no such field.

    Raises:
        InputError: the file is damaged.
    """
    said = {one.image: one.answerable for one in decode_file(path, list[_Record])}
    truth = [said.get(dataset.images.ids[row]) for row in dataset.image_row_N.tolist()]
    if any(one is None for one in truth):
        return {}, {"average precision, F1": "`answerable` of every question, in VizWiz's annotations file"}
    true_N = np.asarray(truth) == 1
    figures, lacking = dict[str, float](), dict[str, str]()
    if score_N is not None:
        figures["average precision"] = average_precision(true_N, score_N)
    else:
        need = "a field `answerable` in the results file, a number that is greater for what can be answered"
        lacking["average precision"] = need
    if not any(text.strip() for text in predictions.distinct):
        return figures, lacking | {"F1 by the answers": "answers in the results file"}
    plain = [normalise(text) not in UNANSWERABLE for text in predictions.distinct]
    given_N = np.asarray([code != ABSENT and plain[code] for code in predictions.codes.tolist()])
    both = int((true_N & given_N).sum())
    figures["F1 by the answers"] = 2 * both / (int(true_N.sum()) + int(given_N.sum())) if both else 0.0
    return figures, lacking


def average_precision(true_N: NDArray[np.bool_], score_N: NDArray[np.float64]) -> float:
    """The sum over thresholds of precision times the recall gained, equal scores at one threshold; 0..1.

    >>> average_precision(np.array([True, False, True]), np.array([0.9, 0.8, 0.7]))
    0.8333333333333333
    """
    if not true_N.any():
        return 0.0
    order = np.argsort(-score_N, kind="stable")
    hits = np.cumsum(true_N[order])
    last = np.append(np.flatnonzero(np.diff(score_N[order])), len(order) - 1)  # of each run of equal scores
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())
