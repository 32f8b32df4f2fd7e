"""Ablations whose truth is known: right and wrong answers from a probit model with seeds, images and questions.

Legend: `S` seeds, `N` questions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr


class Simulation(NamedTuple):
    """How much everything varies, in the units of the probit model (1 is how questions differ among themselves).

    Attributes:
        seed: standard deviation between the seeds of one system.
        image: between images, the same for all systems: images are easy or hard.
        own: between images, of each system: some images suit it.
        rest: between the answers of two seeds to one question.
    """

    seeds: tuple[int, ...]
    images: int
    seed: float = 0.05
    image: float = 0.5
    own: float = 0.3
    rest: float = 0.5


def simulate(
    plan: Simulation, levels: Sequence[float], random: np.random.Generator
) -> tuple[list[NDArray[np.float64]], NDArray[np.int64], NDArray[np.float64]]:
    """One ablation.

    Returns:
        Each system's accuracies, `[S, N]`, 0 or 1; the image of each question; each system's true mean accuracy over
        all seeds and images there could be.
    """
    image_N = np.repeat(np.arange(plan.images), 1 + random.poisson(2, plan.images))
    questions = len(image_N)
    shared_N = random.normal(0, plan.image, plan.images)[image_N] + random.normal(size=questions)
    systems = []
    for level, seeds in zip(levels, plan.seeds, strict=True):
        own_N = level + shared_N + random.normal(0, plan.own, plan.images)[image_N]
        seed_S1 = random.normal(0, plan.seed, (seeds, 1))
        rest_SN = plan.rest * random.standard_normal((seeds, questions), dtype=np.float32)
        systems.append((own_N + seed_S1 + rest_SN > 0).astype(np.float64))
    whole = np.sqrt(1 + plan.seed**2 + plan.image**2 + plan.own**2 + plan.rest**2)
    return systems, image_N, ndtr(np.asarray(levels) / whole)
