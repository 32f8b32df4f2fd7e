"""Sample sizes, against statsmodels and against repeated experiments."""

import numpy as np
import pytest
from helpers.simulated import Simulation, simulate

from vqa.evaluation.statistics.differences import Spread, difference, spread
from vqa.evaluation.statistics.power import images_needed, power, questions_needed, seeds_needed, smallest_seen


def test_power_over_seeds_alone_is_that_of_students_test() -> None:
    theirs = pytest.importorskip("statsmodels.stats.power").TTestIndPower()
    alone = Spread(4.0, 4.0, 0.0, 0.0)  # a standard deviation of two points
    for seeds in (2, 3, 5, 20):
        expected = theirs.power(effect_size=1.5 / 2, nobs1=seeds, alpha=0.05)
        assert power(1.5, alone, 1000, seeds) == pytest.approx(expected, abs=1e-6)
    needed = theirs.solve_power(effect_size=1.5 / 2, alpha=0.05, power=0.8)
    assert seeds_needed(1.5, alone, 1000) == int(np.ceil(needed))


def test_power_over_images_alone_is_that_of_the_paired_test() -> None:
    theirs = pytest.importorskip("statsmodels.stats.power").TTestPower()
    pair = Spread(None, None, 900.0, 100.0)
    expected = theirs.power(effect_size=2 / np.sqrt(1000), nobs=1500, alpha=0.05)
    assert power(2, pair, 1500) == pytest.approx(expected, abs=1e-6)
    images = images_needed(2, pair)
    assert images is not None and power(2, pair, images) >= 0.8 > power(2, pair, images - 1)
    assert power(smallest_seen(pair, 1500), pair, 1500) == pytest.approx(0.8, abs=1e-6)


def test_no_number_of_images_makes_up_for_seeds() -> None:
    noisy = Spread(9.0, 9.0, 100.0, 100.0)
    assert images_needed(1, noisy, seeds=3) is None
    assert seeds_needed(1, Spread(0.1, 0.1, 10_000.0, 0.0), images=10) is None


def test_questions_needed_find_the_difference_as_often_as_promised() -> None:
    random, count = np.random.default_rng(0), questions_needed(4, 0.2)
    found = 0
    for _ in range(400):
        change_N = random.choice([-1, 0, 1], size=count, p=[0.08, 0.8, 0.12])
        found += abs(change_N.mean()) > 1.96 * change_N.std(ddof=1) / np.sqrt(count)
    assert 0.72 < found / 400 < 0.88


def test_power_is_how_often_experiments_find_the_difference() -> None:
    random, plan, levels = np.random.default_rng(1), Simulation((3, 3), images=200), (0.0, 0.1)
    pilot, image_N, truth = simulate(Simulation((40, 40), images=2000), levels, random)
    foretold = power(100 * float(truth[1] - truth[0]), spread(pilot[0], pilot[1], image_N), 200, 3)
    found = 0
    for _ in range(300):
        (first, second), image_N, _ = simulate(plan, levels, random)
        found += difference(first, second, image_N).sure
    assert foretold == pytest.approx(found / 300, abs=0.1) and 0.2 < foretold < 0.95
