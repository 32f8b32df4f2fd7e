"""McNemar's test, where every answer is right or wrong: exact over questions, and with images as clusters.

Legend: `N` questions.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqa.evaluation.diagnose import RIGHT


class McNemar(NamedTuple):
    """Of the questions that exactly one of two systems has right.

    Attributes:
        fixed: questions that only the second has right.
        broken: questions that only the first has right.
        exact_p: two-sided, by the binomial distribution. Takes every question for an independent one, which questions
            about one image are not: where they go together it is too small.
        clustered_p: two-sided, images independent of each other and nothing assumed inside an image: the normal
            approximation of the sign-flip test. Needs some tens of images with a difference.
    """

    fixed: int
    broken: int
    exact_p: float
    clustered_p: float


def mcnemar(first_N: NDArray[np.float64], second_N: NDArray[np.float64], image_row_N: NDArray[np.integer]) -> McNemar:
    """McNemar's test of two systems on the same questions.

    Args:
        first_N: accuracies 0..1; right from 0.5 on.
        second_N: the same of the second system.
        image_row_N: which image each question is about.
    """
    from scipy import stats

    right_N = (first_N >= RIGHT).astype(np.int64)
    change_N = (second_N >= RIGHT).astype(np.int64) - right_N
    fixed, broken = int((change_N > 0).sum()), int((change_N < 0).sum())
    exact = float(stats.binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0
    change_I = np.bincount(np.unique(image_row_N, return_inverse=True)[1], weights=change_N)
    square = float((change_I**2).sum())
    clustered = float(stats.chi2.sf((fixed - broken) ** 2 / square, 1)) if square else 1.0
    return McNemar(fixed, broken, exact, clustered)


def all_or_nothing(*accuracies: NDArray[np.float64]) -> bool:
    """Whether every accuracy is 0 or 1, so that McNemar's test says all there is."""
    return all(bool(((one == 0) | (one == 1)).all()) for one in accuracies)
