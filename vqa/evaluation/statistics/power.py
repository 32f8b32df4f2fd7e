"""How many images or seeds it takes to see a difference, from how much a pilot comparison varied."""

import math
from collections.abc import Callable

from vqa.evaluation.statistics.differences import Spread

ALPHA = 0.05
POWER = 0.8  # the share of experiments that find a difference which is there
MOST = 10**9


def power(points: float, spread: Spread, images: int, seeds: int | None = None, *, alpha: float = ALPHA) -> float:
    """The chance that the two-sided test finds a true difference.

    Args:
        points: the true difference, in percentage points.
        spread: of a pilot, see `vqa.evaluation.statistics.differences.spread`.
        images: of the test split, at least two.
        seeds: runs of each system, at least two; None for one trained model each, whose seeds count for nothing.
    """
    from scipy import stats

    if seeds is None:
        variance, degrees = (spread.image + spread.rest) / images, float(images - 1)
    else:
        assert spread.first_seed is not None and spread.second_seed is not None
        own = [s / seeds + spread.rest / 2 / seeds / images for s in (spread.first_seed, spread.second_seed)]
        shared = spread.image / images
        variance = sum(own) + shared
        below = sum(one**2 for one in own) / (seeds - 1) + (shared + spread.rest / seeds / images) ** 2 / (images - 1)
        degrees = variance**2 / below if below else math.inf
    if variance == 0:
        return 1.0 if points else alpha
    edge, shift = float(stats.t.ppf(1 - alpha / 2, degrees)), abs(points) / math.sqrt(variance)
    if degrees > 10_000:  # where the noncentral t loses its digits it is the normal distribution
        return float(stats.norm.sf(edge - shift) + stats.norm.cdf(-edge - shift))
    return float(stats.nct.sf(edge, degrees, shift) + stats.nct.cdf(-edge, degrees, shift))


def images_needed(points: float, spread: Spread, seeds: int | None = None, *, wanted: float = POWER) -> int | None:
    """The fewest images with which the difference is found; None where no number is enough, for want of seeds."""
    return _fewest(lambda images: power(points, spread, images, seeds) >= wanted)


def seeds_needed(points: float, spread: Spread, images: int, *, wanted: float = POWER) -> int | None:
    """The fewest seeds of each system with which the difference is found; None where the images are too few."""
    return _fewest(lambda seeds: power(points, spread, images, seeds) >= wanted, most=10_000)


def smallest_seen(spread: Spread, images: int, seeds: int | None = None, *, wanted: float = POWER) -> float:
    """The smallest difference that is found, in percentage points."""
    low, high = 0.0, 1.0
    while power(high, spread, images, seeds) < wanted:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, spread, images, seeds) >= wanted else (middle, high)
    return high


def questions_needed(points: float, changed: float, *, alpha: float = ALPHA, wanted: float = POWER) -> int:
    """How many questions, each about another image, two trained models need, where nothing else is known.

    Args:
        points: the true difference, in percentage points.
        changed: the share of questions (0..1) that exactly one of the two has right, at least |points| / 100.
    """
    from scipy import stats

    share = abs(points) / 100
    reach = float(stats.norm.ppf(1 - alpha / 2)) * math.sqrt(changed)
    reach += float(stats.norm.ppf(wanted)) * math.sqrt(max(0.0, changed - share**2))
    return math.ceil((reach / share) ** 2)


def _fewest(enough: Callable[[int], bool], most: int = MOST) -> int | None:
    """The smallest number from 2 on that is enough, where more are never worse."""
    high = 2
    while not enough(high):
        high *= 2
        if high > most:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
