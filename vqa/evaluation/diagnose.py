"""Beyond accuracy: complementary pairs, calibration, risk and coverage, slices of one's own.

Legend: `N` questions, `B` bins of confidence, `I` images.

Everything here takes the accuracy of each question, 0..1, from `vqa.evaluation.accuracy`, or any other per-question
score, and the answers' confidence where it is needed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vqa.data.dataset import QADataset, Strings
from vqa.errors import InputError

RIGHT = 0.5  # an answer counts as right from this accuracy on: two of ten humans gave it


@dataclass(frozen=True)
class PairReport:
    """How a model does on complementary pairs: one question, two images, two different true answers.

    Attributes:
        pairs: how many pairs have both questions in the data set.
        one_right: per cent of pairs with at least one right answer.
        both_right: per cent of pairs with two right answers.
        consistency: per cent of the pairs with at least one right answer in which both are; None without such pairs.
        same_answer: per cent of pairs given the same answer twice, as a model blind to images does; None where the
            predictions were not given.
    """

    pairs: int
    one_right: float
    both_right: float
    consistency: float | None
    same_answer: float | None


def pair_report(dataset: QADataset, accuracy_N: NDArray[np.float64], predictions: Strings | None = None) -> PairReport:
    """Judge complementary pairs (Goyal et al. 2017); an answer is right from an accuracy of `RIGHT` on.

    Raises:
        InputError: the data set has no complementary pairs.
    """
    if dataset.pairs_P2 is None:
        raise InputError(f"{dataset.name} has no complementary pairs: put the official pairs file beside its questions")
    order = np.argsort(dataset.question_id_N)
    pairs = dataset.pairs_P2[np.isin(dataset.pairs_P2, dataset.question_id_N).all(axis=1)]
    if not len(pairs):
        raise InputError(f"{dataset.name}: no complementary pair has both its questions in this split")
    row_P2 = order[np.searchsorted(dataset.question_id_N, pairs, sorter=order)]
    right_P2 = accuracy_N[row_P2] >= RIGHT
    one, both = int(right_P2.any(axis=1).sum()), int(right_P2.all(axis=1).sum())
    same = None
    if predictions is not None:
        answer_P2 = predictions.codes[row_P2]
        same = 100 * float((answer_P2[:, 0] == answer_P2[:, 1]).mean())
    return PairReport(
        pairs=len(pairs),
        one_right=100 * one / len(pairs),
        both_right=100 * both / len(pairs),
        consistency=100 * both / one if one else None,
        same_answer=same,
    )


@dataclass(frozen=True)
class Calibration:
    """How well confidence foretells accuracy, in bins of equal width over 0..1.

    Attributes:
        ece: expected calibration error in percentage points: the mean over questions of |accuracy - confidence| of
            their bin (Guo et al. 2017, equation 3).
        count_B: int64, questions in each bin.
        confidence_B: mean confidence in each bin, 0..1; NaN where the bin is empty.
        accuracy_B: mean accuracy in each bin, 0..1; NaN where the bin is empty.
    """

    ece: float
    count_B: NDArray[np.int64]
    confidence_B: NDArray[np.float64]
    accuracy_B: NDArray[np.float64]


def calibration(confidence_N: NDArray[np.floating], accuracy_N: NDArray[np.float64], bins: int = 15) -> Calibration:
    """Bin the questions by confidence; a bin holds its upper edge, as in Guo et al. (2017).

    Raises:
        ValueError: a confidence is not in 0..1, or the lengths differ.
    """
    confidence = _checked(confidence_N, accuracy_N)
    bin_N = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count_B = np.bincount(bin_N, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence_B = np.bincount(bin_N, weights=confidence, minlength=bins) / count_B
        accuracy_B = np.bincount(bin_N, weights=accuracy_N, minlength=bins) / count_B
    gap_B = np.nan_to_num(np.abs(accuracy_B - confidence_B))
    return Calibration(100 * float((count_B * gap_B).sum() / len(confidence)), count_B, confidence_B, accuracy_B)


@dataclass(frozen=True)
class RiskCoverage:
    """The error among the most confident answers, as more and more of them are given.

    Attributes:
        coverage_N: float64, (1..N) / N: the share of questions answered, most confident first.
        risk_N: float64, one minus the mean accuracy over those answered, 0..1.
        aurc: the area under the curve: the mean of `risk_N`, in per cent; lower is better.
        best_aurc: the area that an ideal confidence would reach with the same answers, in per cent.
    """

    coverage_N: NDArray[np.float64]
    risk_N: NDArray[np.float64]
    aurc: float
    best_aurc: float


def risk_coverage(confidence_N: NDArray[np.floating], accuracy_N: NDArray[np.float64]) -> RiskCoverage:
    """The risk-coverage curve (El-Yaniv and Wiener 2010); equal confidences share their mean accuracy.

    Raises:
        ValueError: a confidence is not in 0..1, or the lengths differ.
    """
    confidence = _checked(confidence_N, accuracy_N)
    _, group_N = np.unique(-confidence, return_inverse=True)
    mean_G = np.bincount(group_N, weights=accuracy_N) / np.bincount(group_N)
    risk_N = _risk(mean_G[np.sort(group_N)])
    coverage_N = np.arange(1, len(confidence) + 1) / len(confidence)
    best = _risk(np.sort(accuracy_N)[::-1])
    return RiskCoverage(coverage_N, risk_N, 100 * float(risk_N.mean()), 100 * float(best.mean()))


def _risk(accuracy_N: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 - np.cumsum(accuracy_N) / np.arange(1, len(accuracy_N) + 1)


def _checked(confidence_N: NDArray[np.floating], accuracy_N: NDArray[np.float64]) -> NDArray[np.float64]:
    confidence = confidence_N.astype(np.float64)
    if confidence.shape != accuracy_N.shape or not confidence.size:
        raise ValueError(
            f"confidence has shape {confidence.shape}, accuracy {accuracy_N.shape}; both must be [N], N > 0"
        )
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("a confidence is not in 0..1")
    return confidence


@dataclass(frozen=True)
class Slice:
    """The questions of one kind.

    Attributes:
        name: what the user calls them.
        count: how many there are.
        accuracy: mean accuracy in per cent; None without a question.
        low: lower end of the 95% confidence interval in per cent; None where there are not two images.
        high: upper end of the same.
        pattern: the regular expression found in them; "" where something else chose them.
    """

    name: str
    count: int
    accuracy: float | None
    low: float | None
    high: float | None
    pattern: str = ""


def compile_slice(name: str, pattern: str) -> re.Pattern[str]:
    """The regular expression of a slice, for any case; raises InputError for a wrong one."""
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise InputError(f"slice {name!r}: {pattern!r} is not a regular expression: {error}") from None


def slice_by_pattern(dataset: QADataset, accuracy_N: NDArray[np.float64], patterns: Mapping[str, str]) -> list[Slice]:
    """One slice for each named regular expression, of the questions in which it is found, whatever their case.

    Raises:
        InputError: an expression is not valid.
    """
    slices = []
    for name, pattern in patterns.items():
        expression = compile_slice(name, pattern)
        found_S = np.asarray([expression.search(text) is not None for text in dataset.question.distinct], dtype=bool)
        found = _slice(name, dataset, accuracy_N, found_S[dataset.question.codes])
        slices.append(replace(found, pattern=pattern))
    return slices


def slice_by_length(
    dataset: QADataset, accuracy_N: NDArray[np.float64], upper: tuple[int, ...] = (4, 6, 8)
) -> list[Slice]:
    """Slices by the number of words between spaces: up to the first of `upper`, up to the next, …, and longer.

    Raises:
        InputError: `upper` is empty or does not rise.
    """
    if not upper or any(a >= b for a, b in pairwise(upper)):
        raise InputError(f"question lengths {upper}: give one or more rising numbers of words")
    length_S = np.asarray([len(text.split()) for text in dataset.question.distinct], dtype=np.int64)
    length_N = length_S[dataset.question.codes]
    slices, above = [], -1
    for bound in upper:
        name = f"{max(above + 1, 0)} to {bound} words"
        slices.append(_slice(name, dataset, accuracy_N, (length_N > above) & (length_N <= bound)))
        above = bound
    return [*slices, _slice(f"more than {above} words", dataset, accuracy_N, length_N > above)]


def _slice(name: str, dataset: QADataset, accuracy_N: NDArray[np.float64], chosen_N: NDArray[np.bool_]) -> Slice:
    chosen = accuracy_N[chosen_N]
    if not len(chosen):
        return Slice(name, 0, None, None, None)
    low, high = confidence_interval(chosen, dataset.image_row_N[chosen_N])
    return Slice(name, len(chosen), 100 * float(chosen.mean()), low, high)


def confidence_interval(
    accuracy_N: NDArray[np.float64], image_row_N: NDArray[np.integer], *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float] | tuple[None, None]:
    """The 95% bootstrap interval of the mean accuracy, in per cent; (None, None) with fewer than two images.

    Images are resampled, not questions: the questions about one image are right or wrong together, and resampling
    them one by one would make the interval too narrow.
    """
    from scipy.stats import bootstrap

    _, image_N = np.unique(image_row_N, return_inverse=True)
    total_I = np.bincount(image_N, weights=accuracy_N)
    count_I = np.bincount(image_N)
    if len(count_I) < 2:
        return None, None

    def mean(total: NDArray[np.float64], count: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        return np.asarray(total.sum(axis=axis) / count.sum(axis=axis))

    result = bootstrap(
        (total_I, count_I),
        mean,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 2_000_000 // len(count_I)),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return 100 * float(result.confidence_interval.low), 100 * float(result.confidence_interval.high)
