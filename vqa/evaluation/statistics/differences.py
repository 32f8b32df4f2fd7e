"""How sure the difference of two systems is, over the images of a test split and over seeds of training.

A system is one or more runs that differ in their seed alone. The accuracy of run s on question q is that of the system,
plus what its seed did, plus what the image did, plus a rest:

1. With one run of either system, the difference is that of **these trained models**. Images are the random sample:
   the bootstrap interval and the sign-flip test of `resampling`, over images. What another seed would have given is
   not known, and nothing here says it.
2. With two or more runs of both, the difference is that of **the methods**. Seeds and images are random samples, so the
   variance of the difference is

       V = s²_A / m_A + s²_B / m_B + max(0, C - J)

   s² is the variance of a system's accuracy over its m seeds, C the variance over images of the mean difference,
   J the part of C that differs from seed to seed, which s² / m holds already. The interval is Student's, with
   Satterthwaite's degrees of freedom: V² / (sum of each part's square over its own degrees). This is how studies with
   several readers of the same medical images are judged (Obuchowski and Rockette 1995; Hillis 2007), a reader being a
   seed here. Resampling seeds, then images, gives intervals far too narrow: of three seeds too few are ever sampled.

Legend: `S` seeds, `N` questions, `I` images. Accuracies are 0..1 going in, and percentage points coming out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqa.errors import InputError, unknown_name
from vqa.evaluation.statistics.resampling import Floats, bootstrap_interval, sign_flip_p

FEW_SEEDS = 3  # with fewer the interval holds the truth in 90 to 99% of cases in place of 95


@dataclass(frozen=True)
class Sampling:
    """How intervals and p-values are made.

    Attributes:
        level: the share of intervals that hold the truth.
        resamples: of the bootstrap and of the sign-flip test.
        seed: of their random numbers; the same seed gives the same digits.
    """

    level: float = 0.95
    resamples: int = 10_000
    seed: int = 0


DEFAULTS = Sampling()


@dataclass(frozen=True)
class Difference:
    """The second system minus the first, in percentage points.

    Attributes:
        points: the difference of mean accuracies.
        low: the lower end of its interval; None with fewer than two images.
        high: the upper end.
        p: two-sided, of no difference; None with fewer than two images.
        questions: that both answered.
        images: that they are about.
        seeds: runs of the first and of the second system.
        over_seeds: whether the interval is that of the methods (seeds and images), or of these trained models.
        degrees: degrees of freedom, where `over_seeds`.
        p_holm: p corrected for all comparisons that were made together; the same as p for a single one.
    """

    points: float
    low: float | None
    high: float | None
    p: float | None
    questions: int
    images: int
    seeds: tuple[int, int]
    over_seeds: bool = False
    degrees: float | None = None
    p_holm: float | None = None

    @property
    def sure(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**vars(self), "seeds": list(self.seeds)}


class Spread(NamedTuple):
    """What the variance of a difference is made of, in squared percentage points.

    Attributes:
        first_seed: variance of the first system's accuracy over seeds, beyond what images explain; None with one seed.
        second_seed: the same of the second.
        image: divided by the number of images, what images contribute whatever the seeds.
        rest: divided by images x seeds, what differs between seeds on one image, both systems together.
    """

    first_seed: float | None
    second_seed: float | None
    image: float
    rest: float


class _Parts(NamedTuple):
    """Variances of a mean difference, accuracies 0..1, each with its degrees of freedom."""

    seeds: tuple[float, ...]
    seed_degrees: tuple[int, ...]
    images: float
    rests: tuple[float, ...]
    image_degrees: int

    @property
    def whole(self) -> float:
        return sum(self.seeds) + max(0.0, self.images - sum(self.rests))

    @property
    def degrees(self) -> float:
        """Satterthwaite's; at least those of one system's seeds."""
        parts = [*zip(self.seeds, self.seed_degrees, strict=True), (self.images, self.image_degrees)]
        below = sum(part**2 / degrees for part, degrees in parts)
        return max(float(min(self.seed_degrees)), self.whole**2 / below) if below else math.inf


def difference(
    first: NDArray[np.float64], second: NDArray[np.float64], image_row_N: NDArray[np.integer], how: Sampling = DEFAULTS
) -> Difference:
    """Compare two systems on the same questions; see the top of the file for the two ways.

    Args:
        first: accuracies 0..1, `[N]` of one run or `[S, N]` of several seeds.
        second: the same of the second system, with as many seeds or not.
        image_row_N: which image each question is about; equal numbers, equal image.

    Raises:
        ValueError: the questions of the two are not equally many, or there are none.
    """
    first_SN, second_SN = np.atleast_2d(first), np.atleast_2d(second)
    if not (first_SN.shape[1] == second_SN.shape[1] == len(image_row_N) > 0):
        raise ValueError(f"accuracies {first.shape} and {second.shape} of {len(image_row_N)} questions")
    image_N = np.unique(image_row_N, return_inverse=True)[1]
    count_I = np.bincount(image_N).astype(np.float64)
    points = 100 * float(second_SN.mean() - first_SN.mean())
    seeds = (len(first_SN), len(second_SN))
    found = Difference(points, None, None, None, len(image_N), len(count_I), seeds)
    if len(count_I) < 2:
        return found
    if min(seeds) > 1:
        return _over_seeds(found, _parts(_sums(first_SN, image_N), _sums(second_SN, image_N), count_I), how.level)
    sum_I = _sums((second_SN.mean(axis=0) - first_SN.mean(axis=0))[None], image_N)[0]
    options = {"resamples": how.resamples, "seed": how.seed}
    low, high = bootstrap_interval(sum_I, count_I, level=how.level, **options)
    assert low is not None and high is not None  # there are two images
    p = sign_flip_p(sum_I, **options)
    return replace(found, low=100 * low, high=100 * high, p=p, p_holm=p)


def _sums(accuracy_SN: Floats, image_N: NDArray[np.intp]) -> Floats:
    """The sum of each run's accuracies on each image, `[S, I]`."""
    return np.stack([np.bincount(image_N, weights=accuracy_N) for accuracy_N in accuracy_SN]).astype(np.float64)


def _parts(first_SI: Floats, second_SI: Floats, count_I: Floats) -> _Parts:
    """What the variance of the difference is made of; a system with one seed has no part of its own."""
    questions, images = count_I.sum(), len(count_I)
    fair = images / (images - 1)
    mean_I = np.zeros(images)
    seeds, seed_degrees, rests = [], [], []
    for sign, sum_SI in ((-1, first_SI), (1, second_SI)):
        runs = len(sum_SI)
        mean_S = sum_SI.sum(axis=1) / questions
        residual_SI = (sum_SI - count_I * mean_S[:, None]) / questions
        mean_I += sign * residual_SI.mean(axis=0)
        if runs > 1:
            seeds.append(float(mean_S.var(ddof=1)) / runs)
            seed_degrees.append(runs - 1)
            rests.append(float(fair * residual_SI.var(axis=0, ddof=1).sum()) / runs)
    return _Parts(tuple(seeds), tuple(seed_degrees), float(fair * (mean_I**2).sum()), tuple(rests), images - 1)


def _over_seeds(found: Difference, parts: _Parts, level: float) -> Difference:
    from scipy import stats

    error, degrees = 100 * math.sqrt(parts.whole), parts.degrees
    half = error * float(stats.t.ppf((1 + level) / 2, degrees)) if error else 0.0
    p = 2 * float(stats.t.sf(abs(found.points) / error, degrees)) if error else float(found.points == 0)
    return replace(
        found,
        low=max(-100.0, found.points - half),
        high=min(100.0, found.points + half),
        p=p,
        p_holm=p,
        over_seeds=True,
        degrees=degrees if math.isfinite(degrees) else None,
    )


def spread(first: Floats, second: Floats, image_row_N: NDArray[np.integer]) -> Spread:
    """What the variance of two systems' difference is made of, for `vqa.evaluation.statistics.power`.

    Args:
        first, second, image_row_N: as for `difference`; at least two images.
    """
    first_SN, second_SN = np.atleast_2d(first), np.atleast_2d(second)
    image_N = np.unique(image_row_N, return_inverse=True)[1]
    count_I = np.bincount(image_N).astype(np.float64)
    parts = _parts(_sums(first_SN, image_N), _sums(second_SN, image_N), count_I)
    images, runs = len(count_I), (len(first_SN), len(second_SN))
    if min(runs) < 2:
        return Spread(None, None, 1e4 * images * parts.images, 0.0)
    own = [1e4 * max(0.0, m * (seed - rest)) for m, seed, rest in zip(runs, parts.seeds, parts.rests, strict=True)]
    rest = 1e4 * images * sum(m * rest for m, rest in zip(runs, parts.rests, strict=True))
    return Spread(own[0], own[1], 1e4 * images * max(0.0, parts.images - sum(parts.rests)), rest)


@dataclass(frozen=True)
class SystemStatistics:
    """One system among those compared.

    Attributes:
        mean: accuracy in percent, the mean over its runs, not rounded.
        deviation: the standard deviation over its runs (n - 1), in percentage points; None for one run.
        seeds: how many runs.
        against: its difference from the baseline; None for the baseline itself.
    """

    mean: float
    deviation: float | None
    seeds: int
    against: Difference | None


def compare_systems(
    systems: Mapping[str, NDArray[np.float64]],
    image_row_N: NDArray[np.integer],
    baseline: str,
    how: Sampling = DEFAULTS,
) -> dict[str, SystemStatistics]:
    """Compare every system with one of them, p corrected by Holm for as many comparisons.

    Args:
        systems: by name, accuracies 0..1 of the same questions, `[N]` of one run or `[S, N]` of several seeds.
        image_row_N: which image each question is about.
        baseline: the name of the one that the others are compared with.

    Raises:
        InputError: no system has the baseline's name.
    """
    if baseline not in systems:
        raise InputError(unknown_name("baseline", baseline, systems))
    found = {}
    for name, accuracy in systems.items():
        mean_S = 100 * np.atleast_2d(accuracy).mean(axis=1)
        deviation = float(mean_S.std(ddof=1)) if len(mean_S) > 1 else None
        against = None if name == baseline else difference(systems[baseline], accuracy, image_row_N, how)
        found[name] = SystemStatistics(float(mean_S.mean()), deviation, len(mean_S), against)
    corrected = corrected_by_holm({name: one.against for name, one in found.items() if one.against is not None})
    return {name: replace(one, against=corrected.get(name)) for name, one in found.items()}


def corrected_by_holm(differences: Mapping[str, Difference]) -> dict[str, Difference]:
    """The same differences with `p_holm` for all of them together; those without a p count for nothing."""
    tested = [name for name, one in differences.items() if one.p is not None]
    values = holm([one.p for one in differences.values() if one.p is not None])
    by_name = dict(zip(tested, values, strict=True))
    return {name: replace(one, p_holm=by_name.get(name)) for name, one in differences.items()}


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the chance of even one false finding among all stays below the corrected p.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    corrected, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = largest
    return corrected
