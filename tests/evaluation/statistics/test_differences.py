"""Differences of systems, against scipy and statsmodels, and against simulated ablations whose truth is known."""

from collections.abc import Sequence

import numpy as np
import pytest
from helpers.simulated import Simulation, simulate
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from vqa.errors import InputError
from vqa.evaluation.statistics.differences import (
    Sampling,
    compare_systems,
    corrected_by_holm,
    difference,
    holm,
    spread,
)
from vqa.evaluation.statistics.mcnemar import all_or_nothing, mcnemar
from vqa.evaluation.statistics.resampling import bootstrap_interval, resampled_means, sign_flip_p

STEPS = np.array([0.0, 0.3, 0.6, 0.9, 1.0])


def answers(seed: int, images: int, *seeds: int) -> tuple[list[NDArray[np.float64]], NDArray[np.int64]]:
    """Systems of so many seeds with accuracies of the official metric, and the images."""
    random = np.random.default_rng(seed)
    image_N = np.repeat(np.arange(images), 1 + random.poisson(2, images))
    return [random.choice(STEPS, size=(count, len(image_N))) for count in seeds], image_N


def test_the_bootstrap_is_that_of_scipy_over_images() -> None:
    (first, second), image_N = answers(0, 200, 1, 1)
    sum_I = np.bincount(image_N, weights=(second - first)[0]).astype(np.float64)
    count_I = np.bincount(image_N).astype(np.float64)
    low, high = bootstrap_interval(sum_I, count_I, resamples=20_000)
    theirs = stats.bootstrap(
        (sum_I, count_I), lambda s, c, axis=-1: s.sum(axis=axis) / c.sum(axis=axis), paired=True, vectorized=True,
        n_resamples=20_000, method="percentile", rng=np.random.default_rng(5),
        confidence_level=1 - 2 * stats.norm.cdf(-np.sqrt(200 / 199) * stats.t.ppf(0.975, 199)),
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)
    assert low is not None and high is not None and high - low > 0.05  # so that the tolerance says something


def test_drawing_groups_of_equal_images_is_drawing_images() -> None:
    sum_I, count_I = np.tile([1.0, 0.0, -0.6, 0.3], 100), np.tile([2.0, 1.0, 3.0, 1.0], 100)
    shifted_I = sum_I + np.linspace(0, 1e-7, len(sum_I))  # no two are equal, so single images are drawn
    grouped, single = resampled_means(sum_I, count_I, 20_000), resampled_means(shifted_I, count_I, 20_000)
    assert stats.ks_2samp(grouped, single).pvalue > 0.01
    assert grouped.std() == pytest.approx(single.std(), rel=0.03)


def test_the_sign_flip_test_is_that_of_scipy() -> None:
    few_I = np.array([0.3, -1.0, 0.0, 0.6, 2.0, 0.3, -0.3])
    theirs = stats.permutation_test(
        (few_I, np.zeros(7)), lambda a, b, axis=-1: (a - b).sum(axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=2**7,
    )  # fmt: skip
    assert sign_flip_p(few_I) == pytest.approx(theirs.pvalue, abs=1e-12)
    many_I = np.random.default_rng(1).normal(0.1, 1, 300)
    normal = 2 * stats.norm.sf(abs(many_I.sum()) / np.sqrt((many_I**2).sum()))
    assert sign_flip_p(many_I, resamples=40_000) == pytest.approx(normal, abs=0.015)
    assert sign_flip_p(np.round(many_I), resamples=40_000) == pytest.approx(
        sign_flip_p(np.round(many_I) + 1e-13), abs=0.015
    )
    assert sign_flip_p(np.zeros(10)) == 1.0


def test_mcnemar_is_that_of_statsmodels_and_knows_images() -> None:
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    first, second = np.repeat([1.0, 1.0, 0.0, 0.0], [50, 9, 21, 20]), np.repeat([1.0, 0.0, 1.0, 0.0], [50, 9, 21, 20])
    found = mcnemar(first, second, np.arange(100))
    table = [[50, 9], [21, 20]]
    assert (found.fixed, found.broken) == (21, 9)
    assert found.exact_p == pytest.approx(contingency.mcnemar(table, exact=True).pvalue)
    theirs = contingency.mcnemar(table, exact=False, correction=False).pvalue  # every image has one question
    assert found.clustered_p == pytest.approx(theirs)
    grouped = mcnemar(first, second, np.repeat(np.arange(25), 4))
    assert grouped.exact_p == found.exact_p and grouped.clustered_p > 2 * found.clustered_p
    assert mcnemar(first, first, np.arange(100))[2:] == (1.0, 1.0)
    assert all_or_nothing(first, second) and not all_or_nothing(first, first * 0.3)


def test_holm_is_that_of_a_case_from_statsmodels() -> None:
    found = holm([0.01, 0.04, 0.03, 0.005])  # multipletests(…, method="holm"), statsmodels 0.15
    assert found == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.slow  # its import alone takes long where nothing of it is compiled yet
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p: list[float]) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1].tolist())


def test_without_differences_between_images_seeds_are_compared_by_welch() -> None:
    first_S, second_S = np.array([0.41, 0.44, 0.40]), np.array([0.47, 0.45, 0.49, 0.46])
    image_N = np.repeat(np.arange(10), 3)
    found = difference(np.outer(first_S, np.ones(30)), np.outer(second_S, np.ones(30)), image_N)
    welch = stats.ttest_ind(second_S, first_S, equal_var=False)
    ends = welch.confidence_interval()
    assert (found.p, found.low, found.high) == pytest.approx((welch.pvalue, 100 * ends.low, 100 * ends.high))
    assert found.over_seeds and found.degrees == pytest.approx(welch.df)


def test_without_differences_between_seeds_the_variance_is_that_of_clustered_regression() -> None:
    regression = pytest.importorskip("statsmodels.api")
    (first, second), image_N = answers(3, 60, 1, 1)
    fitted = regression.OLS((second - first)[0], np.ones(len(image_N))).fit(
        cov_type="cluster", cov_kwds={"groups": image_N}
    )
    assert spread(first, second, image_N).image / 60 == pytest.approx(1e4 * fitted.bse[0] ** 2)
    twice = difference(np.repeat(first, 3, axis=0), np.repeat(second, 3, axis=0), image_N)
    assert twice.high is not None and twice.low is not None
    assert (twice.high - twice.low) / 2 == pytest.approx(100 * fitted.bse[0] * stats.t.ppf(0.975, 59))


def test_the_variance_over_seeds_and_images_is_that_of_two_way_analysis() -> None:
    """With equally many questions an image: mean squares of seeds, images and the rest, as in any textbook."""
    random = np.random.default_rng(4)
    accuracy_SI = random.normal(0.5, 0.1, (4, 1)) + random.normal(0, 0.2, 30) + random.normal(0, 0.1, (4, 30))
    nothing_SI = np.full((4, 30), 0.5)
    found = spread(nothing_SI, accuracy_SI, np.arange(30))
    mean = accuracy_SI.mean()
    seed_S, image_I = accuracy_SI.mean(axis=1), accuracy_SI.mean(axis=0)
    rest_SI = accuracy_SI - seed_S[:, None] - image_I + mean
    squares = 30 * ((seed_S - mean) ** 2).sum() / 3, 4 * ((image_I - mean) ** 2).sum() / 29, (rest_SI**2).sum() / 87
    expected = (squares[0] - squares[2]) / 30, (squares[1] - squares[2]) / 4, squares[2]
    assert (found.second_seed, found.image, found.rest) == pytest.approx([1e4 * part for part in expected])
    assert found.first_seed == 0


def test_equal_answers_are_no_difference_and_one_image_says_nothing() -> None:
    (first, other), image_N = answers(5, 30, 2, 2)
    for one in (first[0], first):
        same = difference(one, one, image_N)
        assert same.points == 0 and same.p is not None and same.p == pytest.approx(1) and not same.sure
    alone = difference(first[0], other[0], np.zeros_like(image_N))
    assert alone.low is None and alone.p is None and not alone.sure


def test_the_same_seed_gives_the_same_digits() -> None:
    (first, second), image_N = answers(6, 50, 1, 1)
    how = Sampling(resamples=500, seed=3)
    assert difference(first, second, image_N, how) == difference(first, second, image_N, how)
    assert difference(first, second, image_N, how) != difference(first, second, image_N, Sampling(resamples=500))


def test_systems_are_compared_with_the_baseline_and_corrected_together() -> None:
    (a, b, c), image_N = answers(7, 40, 3, 3, 1)
    found = compare_systems({"a": a, "b": b, "c": c}, image_N, "b")
    assert found["b"].against is None and found["b"].mean == pytest.approx(100 * b.mean())
    assert found["b"].deviation == pytest.approx(100 * b.mean(axis=1).std(ddof=1)) and found["c"].deviation is None
    alone = {name: difference(b, one, image_N) for name, one in (("a", a), ("c", c))}
    assert {name: found[name].against for name in alone} == corrected_by_holm(alone)
    assert found["a"].against is not None and found["a"].against.seeds == (3, 3)
    assert found["c"].against is not None and not found["c"].against.over_seeds
    with pytest.raises(InputError, match="unknown baseline 'd'"):
        compare_systems({"a": a}, image_N, "d")


def held_and_found(plan: Simulation, levels: Sequence[float], ablations: int) -> tuple[float, float]:
    """Percent of intervals that hold the truth, and of ablations in which an equal system is called different."""
    random, held, wrong = np.random.default_rng(0), [], []
    for number in range(ablations):
        systems, image_N, truth = simulate(plan, levels, random)
        named = {str(place): system for place, system in enumerate(systems)}
        found = compare_systems(named, image_N, "0", Sampling(resamples=999, seed=number))
        called = []
        for place in range(1, len(levels)):
            against = found[str(place)].against
            assert against is not None and against.low is not None and against.high is not None
            held.append(against.low <= 100 * (truth[place] - truth[0]) <= against.high)
            if levels[place] == levels[0]:
                called.append(against.p_holm is not None and against.p_holm <= 0.05)
        wrong.append(any(called))
    return 100 * float(np.mean(held)), 100 * float(np.mean(wrong))


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_intervals_hold_the_truth_and_equal_systems_are_equal(seeds: int) -> None:
    """Of 150 ablations with 3 cells; 95% are held, give or take three standard errors."""
    plan = Simulation((seeds,) * 4, images=100, seed=0.0 if seeds == 1 else 0.05)
    held, wrong = held_and_found(plan, (0.0, 0.0, 0.0, 0.1), 150)
    assert 91.5 <= held <= 98.5 and wrong <= 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0.0, 0.05, 0.15])
@pytest.mark.parametrize("images", [50, 300, 1000])
@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_of_a_thousand_ablations(seeds: int, images: int, seed: float) -> None:
    if seeds == 1 and seed:
        pytest.skip("one seed says nothing of others")
    held, wrong = held_and_found(Simulation((seeds,) * 4, images, seed), (0.0, 0.0, 0.0, 0.1), 1000)
    assert 93 <= held <= (99 if images == 50 else 97.5) and wrong <= 6


def test_one_seed_cannot_tell_methods_apart() -> None:
    """Equal methods whose seeds vary are called different far too often, if trained models are taken for them."""
    random, plan = np.random.default_rng(0), Simulation((1, 1), images=300, seed=0.15)
    sure = 0
    for number in range(100):
        (first, second), image_N, _ = simulate(plan, (0.0, 0.0), random)
        sure += difference(first, second, image_N, Sampling(resamples=200, seed=number)).sure
    assert sure > 20
