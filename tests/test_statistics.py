"""Statistics of several runs: numbers by hand, SciPy as the oracle, the promised error rates."""

from __future__ import annotations

import math
import tracemalloc
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from seqrl.core import UsageError
from seqrl.training import statistics
from seqrl.training.statistics import (
    area_under_curve,
    bootstrap,
    common_grid,
    compare_pairs,
    count,
    holm,
    iqm,
    mean,
    median,
    normalize,
    performance_profile,
    permutation_test,
    probability_of_improvement,
    resample,
    steps_to_threshold,
    verdict,
)

NAN = math.nan
same = settings(derandomize=True, database=None, deadline=None, max_examples=60)
numbers = st.floats(-1e6, 1e6, width=32)
small_whole = st.integers(-3, 3).map(float)  # many ties
runs = st.lists(small_whole, min_size=1, max_size=6)


# --- curves --------------------------------------------------------------------------------------


def test_a_curve_is_carried_forward_and_unknown_outside() -> None:
    answer = resample([10, 20, 20, 40], [1.0, 2.0, 3.0, 4.0], [5, 10, 19, 20, 39, 40, 41])
    assert_array_equal(answer, [NAN, 1, 1, 3, 3, 4, NAN])


def test_the_last_value_lasts_until_the_runs_end() -> None:
    assert_array_equal(resample([10], [1.0], [9, 10, 50, 51], end=50), [NAN, 1, 1, NAN])


def test_a_nan_point_stays_unknown_until_the_next() -> None:
    assert_array_equal(resample([1, 2, 3], [1.0, NAN, 5.0], [1, 2, 3]), [1, NAN, 5])


def test_an_empty_curve_is_all_unknown() -> None:
    assert_array_equal(resample([], [], [0, 1, 2]), [NAN] * 3)
    assert_array_equal(resample([], [], [0, 1, 2], end=9), [NAN] * 3)
    assert math.isnan(area_under_curve([], [], end=9))
    assert math.isnan(steps_to_threshold([], [], 0))


@same
@given(st.lists(st.tuples(st.integers(0, 20), numbers), max_size=8))
def test_resample_equals_a_search_by_hand(points: list[tuple[int, float]]) -> None:
    points = sorted(points, key=lambda point: point[0])
    grid = range(-1, 23)
    steps, values = [step for step, _ in points], [value for _, value in points]
    last = max(steps, default=-1)
    expected = [[NAN, *(v for s, v in points if s <= at)][-1] if at <= last else NAN for at in grid]
    assert_array_equal(resample(steps, values, grid), expected)


def test_the_common_grid_ends_with_the_longest_curve_in_whole_steps() -> None:
    curves = [([3, 7], [0, 0]), ([5, 10], [0, 0]), ([], [])]
    assert common_grid(curves, points=4).tolist() == [3, 5, 8, 10]
    assert common_grid(curves, points=100).tolist() == list(range(1, 11))
    assert common_grid([], points=2, end=1000).tolist() == [500, 1000]
    grid = common_grid([([300_000], [0])])
    assert grid.tolist() == list(range(1500, 300_001, 1500))


def test_area_is_the_time_weighted_mean() -> None:
    assert area_under_curve([0, 10], [0.0, 1.0]) == 0.5
    assert area_under_curve([0, 10, 40], [0.0, 1.0, 1.0]) == 0.875  # (5 + 30) / 40
    assert area_under_curve([0, 10], [0.0, 1.0], end=40) == 0.875
    assert area_under_curve([7], [3.0]) == area_under_curve([7], [3.0], end=50) == 3.0
    assert area_under_curve([7, 7], [3.0, 4.0]) == 4.0
    assert area_under_curve([10, 20], [0.0, 1.0]) == 0.25  # (0 + 5) / 20: the run begins at 0
    assert area_under_curve([100, 110], [-100.0, 0.0], end=200) == -52.5  # (10,000 + 500) / 200
    assert area_under_curve([0], [3.0]) == 3.0 and math.isnan(area_under_curve([], [], end=9))
    assert math.isnan(area_under_curve([0, 1, 2], [0.0, NAN, 1.0]))


def test_steps_to_a_threshold() -> None:
    assert steps_to_threshold([5, 6, 7], [0.0, 2.0, 1.0], 1.0) == 6
    assert steps_to_threshold([5, 6, 7], [NAN, 2.0, 1.0], 2.0) == 6
    assert math.isnan(steps_to_threshold([5, 6], [0.0, 1.0], 1.5))


# --- summaries -----------------------------------------------------------------------------------


@same
@given(arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 3)), elements=numbers))
def test_summaries_equal_scipy_and_numpy(x: np.ndarray) -> None:
    for axis in (0, 1, -1):
        assert_allclose(iqm(x, axis), scipy.stats.trim_mean(x, 0.25, axis), atol=1e-8)
        assert_allclose(mean(x, axis), np.mean(x, axis), atol=1e-8)
        assert_allclose(median(x, axis), np.median(x, axis), atol=1e-8)


def test_summaries_leave_missing_values_out() -> None:
    x = np.array([[1.0, NAN], [NAN, NAN], [2.0, NAN], [3.0, NAN], [10.0, NAN]])
    assert_array_equal(mean(x), [4, NAN])
    assert_array_equal(median(x), [2.5, NAN])
    assert_array_equal(iqm(x), [2.5, NAN])  # 4 present: one cut on each side
    assert_array_equal(count(x), [4, 0])


def test_normalize() -> None:
    assert_array_equal(normalize([-100.0, -13.0, NAN], -100, -13), [0, 1, NAN])
    assert normalize(-56.5, random=-100, optimum=-13) == 0.5


def test_the_bootstrap_of_two_runs_by_hand() -> None:
    """Drawn again, {0, 1} has the mean 0, 1/2 or 1 with probability 1/4, 1/2, 1/4."""
    assert bootstrap([0.0, 1.0], mean) == (0.5, 0, 1)
    assert bootstrap([0.0, 1.0], mean, confidence=0.4) == (0.5, 0.5, 0.5)
    assert bootstrap([0.0, 1.0], mean, confidence=0.6) == (0.5, 0, 1)


@pytest.mark.parametrize(("ours", "theirs"), [(mean, np.mean), (median, np.median)])
def test_the_bootstrap_equals_scipys(ours: Any, theirs: Any) -> None:
    x = np.random.default_rng(3).gamma(2, size=15)
    expected = scipy.stats.bootstrap(
        (x,), theirs, method="percentile", n_resamples=20_000, rng=np.random.default_rng(4)
    ).confidence_interval
    value, low, high = bootstrap(x, ours, resamples=20_000)
    assert_allclose([value, low, high], [theirs(x), *expected], atol=0.02)
    assert high - low > 0.5


def test_strata_are_drawn_from_apart() -> None:
    """Two environments without any spread leave nothing to be unsure of; pooled they would."""
    easy, hard = np.ones(4), np.zeros(4)
    assert bootstrap([easy, hard], mean) == (0.5, 0.5, 0.5)
    pooled = bootstrap(np.concatenate([easy, hard]), mean)
    assert pooled.low < 0.3 and pooled.high > 0.7
    assert bootstrap([np.ones(2), np.zeros(6)], mean).value == 0.25  # every run counts once


def test_one_run_has_no_interval() -> None:
    value, low, high = bootstrap([3.0])
    assert value == 3 and math.isnan(low) and math.isnan(high)
    assert math.isnan(bootstrap([np.array([3.0]), np.array([1.0, 2.0])]).low)
    assert math.isnan(probability_of_improvement([1.0], [0.0, 2.0]).low)


def test_bands_of_curves_of_unequal_length() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 5))
    x[3:, 3] = NAN  # three runs reach the fourth point, one the last
    x[1:, 4] = NAN
    value, low, high = bootstrap(x)
    assert_array_equal(value, iqm(x))
    assert (low[:4] <= value[:4]).all() and (value[:4] <= high[:4]).all()
    assert x[:3, 3].min() == low[3] and x[:3, 3].max() == high[3]
    assert_array_equal(np.isnan([low, high]), [[False] * 4 + [True]] * 2)
    assert_array_equal(bootstrap(x[:, :3]).low, low[:3])  # whole runs are drawn, so columns agree


def test_the_bootstrap_repeats_and_follows_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(size=9)
    first = bootstrap(x)
    assert first == bootstrap(x) and first != bootstrap(x, seed=1)
    monkeypatch.setattr(statistics, "BLOCK", 100)  # the size of the blocks changes nothing
    assert bootstrap(x) == first


def test_the_bootstrap_holds_little_memory() -> None:
    x = np.random.default_rng(0).normal(size=(50, 300))  # all resamples at once: 240 MB
    tracemalloc.start()
    bootstrap(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6


def test_performance_profile() -> None:
    value, low, high = performance_profile([0.0, 0.5, 1.0, 1.0, NAN], [-1, 0, 0.5, 0.9, 1])
    assert_array_equal(value, [1, 0.75, 0.5, 0.5, 0])
    assert low[0] == high[0] == 1 and low[4] == high[4] == 0
    assert low[2] == 0 and high[2] == 1
    assert_array_equal(performance_profile([[0.0, 1.0], [1.0, 1.0]], [0.5]).value, [0.75])


# --- comparisons ---------------------------------------------------------------------------------


def test_probability_of_improvement_by_hand() -> None:
    assert probability_of_improvement([3.0, 1.0], [1.0, 2.0]).value == 0.625  # 1 + 1 + 1/2 of 4
    assert probability_of_improvement([2.0, 3.0], [0.0, 1.0]) == (1, 1, 1)
    assert probability_of_improvement([[2.0, 3.0]] * 3, [[0.0, 1.0]] * 3) == pytest.approx(
        (1, 1, 1)
    )
    two = probability_of_improvement([[2.0, 3.0], [0.0]], [[0.0, 1.0], [0.0, 1.0]])
    assert two.value == 0.625  # the mean of 1 and 1/4


@same
@given(runs, runs)
def test_probability_of_improvement_equals_mann_whitney(x: list[float], y: list[float]) -> None:
    u = scipy.stats.mannwhitneyu(x, y, method="exact").statistic
    ours = probability_of_improvement(x, y, resamples=20).value
    assert_allclose(ours, u / (len(x) * len(y)))
    assert_allclose(probability_of_improvement(y, x, resamples=20).value, 1 - ours)


def test_the_interval_of_the_probability_equals_scipys() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(0.5, 1, 12), rng.normal(0, 1, 8)

    def wins(a: np.ndarray, b: np.ndarray) -> float:
        return float((a[:, None] > b).mean())

    expected = scipy.stats.bootstrap(
        (x, y), wins, method="percentile", vectorized=False, n_resamples=4000, rng=rng
    ).confidence_interval
    ours = probability_of_improvement(x, y, resamples=4000)
    assert_allclose([ours.low, ours.high], expected, atol=0.03)


def test_the_permutation_test_by_hand() -> None:
    """The C(4, 2) = 6 ways to split 1, 2, 3, 4 have means 2, 1, 0, 0, 1 and 2 apart."""
    assert permutation_test([3.0, 4.0], [1.0, 2.0]) == pytest.approx(2 / 6)
    assert permutation_test([3.0, 1.0], [2.0, 4.0]) == pytest.approx(4 / 6)
    assert permutation_test([5.0, 5.0], [5.0, 5.0]) == 1
    assert permutation_test([1.0], [2.0]) == 1
    assert permutation_test([1.0], [1 - 1e-8, 0.0]) == pytest.approx(2 / 3)  # close is not equal


@pytest.mark.parametrize("origin", [0.0, 1e12])
def test_two_extreme_splits_count_as_two(origin: float) -> None:
    """The mirror of the split observed is a tie, also where the mean (here 7.2) is rounded."""
    near = np.array([0, 1, 2, 3, 5]) + origin
    for sides in ((near, near + 10), (near + 10, near)):
        assert permutation_test(*sides) == pytest.approx(2 / math.comb(10, 5))


def welch_deviate(x: np.ndarray, y: np.ndarray) -> float:
    """Welch's t, of two runs at least a side, as the normal deviate with the same p-value."""
    if np.ptp(x) == np.ptp(y) == 0:
        return 0.0 if x[0] == y[0] else math.inf
    a, b = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
    freedom = (a + b) ** 2 / (a**2 / (len(x) - 1) + b**2 / (len(y) - 1))
    t = abs(x.mean() - y.mean()) / math.sqrt(a + b)
    return float(scipy.stats.norm.isf(scipy.stats.t.sf(t, freedom)))


@settings(same, max_examples=25)
@given(st.lists(small_whole, min_size=3, max_size=5), st.lists(small_whole, min_size=3, max_size=5))
def test_the_permutation_test_equals_enumeration(x: list[float], y: list[float]) -> None:
    pool, sizes = np.array(x + y), []
    for chosen in combinations(range(len(pool)), len(x)):
        side = np.isin(np.arange(len(pool)), chosen)
        sizes.append(welch_deviate(pool[side], pool[~side]))
    near = np.isclose(sizes, sizes[0], rtol=0.03, atol=1e-6)  # Wallace's deviate is rounded
    at_least = np.array(sizes) >= sizes[0]
    p = permutation_test(x, y)
    assert np.mean(at_least & ~near) <= p <= np.mean(at_least | near)


def test_the_permutation_test_equals_scipys() -> None:
    rng = np.random.default_rng(6)
    for n, m in ((6, 8), (12, 15)):  # all 3,003 splits; 10,000 of 17 million
        x, y = rng.normal(0.6, 1, n), rng.normal(0, 3, m)
        expected = scipy.stats.permutation_test(
            (x, y),
            lambda a, b, axis: -scipy.stats.ttest_ind(a, b, axis=axis, equal_var=False).pvalue,
            vectorized=True,
            alternative="greater",  # of the size; "two-sided" would double the smaller tail
            n_resamples=20_000,
            rng=rng,
        ).pvalue
        assert permutation_test(x, y) == pytest.approx(expected, abs=0.002 if n == 6 else 0.015)


@same
@given(runs, runs, st.sampled_from([1e-9, 0.1, 3.0, 1e9]), st.sampled_from([0.1, -1e9 - 0.1, 1e12]))
def test_p_values_know_no_side_no_unit_and_no_origin(
    x: list[float], y: list[float], unit: float, origin: float
) -> None:
    p = permutation_test(x, y)
    assert 0 < p <= 1
    assert permutation_test(y, x) == pytest.approx(p)
    a, b = np.array(x), np.array(y)
    assert permutation_test(a * unit, b * unit) == pytest.approx(p)
    assert permutation_test(a + origin, b + origin) == pytest.approx(p)


def test_random_splits_are_valid_repeat_and_count_the_one_observed() -> None:
    eight, nine = np.arange(8.0), np.arange(9.0)  # C(16, 8) = 12,870 and C(18, 9) = 48,620
    assert permutation_test(eight + 100, eight, resamples=99) == 2 / 12_870
    assert permutation_test(nine + 100, nine, resamples=99) == 1 / 100
    x, y = np.random.default_rng(0).normal(size=(2, 20, 3))
    p = permutation_test(x, y)
    assert_array_equal(p, permutation_test(x, y))
    assert (p != permutation_test(x, y, seed=1)).any()
    assert_array_equal(p, [permutation_test(x[:, i], y[:, i]) for i in range(3)])


def test_holm_by_hand() -> None:
    assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert_allclose(holm([0.6, 0.9]), [1, 1])
    assert holm([0.05]).tolist() == [0.05] and holm([]).tolist() == []


@same
@given(st.lists(st.sampled_from([0.0, 0.004, 0.01, 0.02, 0.03, 0.6, 1.0]), max_size=6))
def test_holm_rejects_as_the_step_down_procedure_does(p: list[float]) -> None:
    level, rejected = 0.05, set()
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[i] > level / (len(p) - rank):
            break
        rejected.add(i)
    assert {i for i, q in enumerate(holm(p)) if q <= level} == rejected


def test_verdicts() -> None:
    assert verdict(1.0, 0.05) == "better" and verdict(-1.0, 0.0) == "worse"
    assert verdict(1.0, 0.051) == verdict(9.0, NAN) == "not distinguishable"
    five = np.arange(5.0)
    pairs = [(five + 10, five), (five, five + 10), (five, five)]
    answers = compare_pairs(pairs)
    assert [a.verdict for a in answers] == ["better", "worse", "not distinguishable"]
    assert [a.difference for a in answers] == [10, -10, 0]
    assert answers[0].p_value == pytest.approx(2 / 252)
    assert answers[0].adjusted == pytest.approx(6 / 252)
    many = compare_pairs(pairs[:1] * 7)  # 7 x 2 / 252 = .056: too many questions for five runs
    assert {a.verdict for a in many} == {"not distinguishable"}


def simulated(n: int, gap: float, m: int | None = None, spread: float = 1.0) -> list[str]:
    """The verdicts of 1,000 comparisons of n normal runs with m (or n), `gap` deviations apart."""
    rng = np.random.default_rng(2021)
    x, y = rng.normal(gap, 1, (n, 1000)), rng.normal(0, spread, (m or n, 1000))
    gaps, p_values = mean(x) - mean(y), permutation_test(x, y, resamples=1999)
    return [verdict(*each) for each in zip(gaps, p_values, strict=True)]


@pytest.mark.parametrize("n", [5, 10, 20])
def test_identical_algorithms_are_not_told_apart(n: int) -> None:
    assert 930 <= simulated(n, gap=0).count("not distinguishable") <= 970


@pytest.mark.parametrize(
    ("n", "m", "spread"), [(10, 4, 5.0), (4, 10, 0.2), (10, 4, 1.0), (10, 4, 0.2), (10, 10, 5.0)]
)
def test_equal_means_are_not_told_apart_by_their_spreads(n: int, m: int, spread: float) -> None:
    """By the bare difference of means 26 % of the first two would be; by Welch's t 12 %."""
    assert 920 <= simulated(n, 0, m, spread).count("not distinguishable") <= 975


@pytest.mark.parametrize(("n", "m", "gap", "found"), [(20, 20, 1, 800), (10, 4, 2, 730)])
def test_a_gap_is_found(n: int, m: int, gap: float, found: int) -> None:
    """As often as by Welch's t-test, whose power is 0.87 and 0.77 there."""
    verdicts = simulated(n, gap, m)
    assert verdicts.count("better") >= found and verdicts.count("worse") <= 1


def test_of_five_identical_algorithms_none_stands_out() -> None:
    """Ten pairs at once: with Holm a table holds any false verdict in at most 5 % of cases."""
    rng, tables = np.random.default_rng(7), 300
    scores = rng.normal(size=(5, 8, tables))
    p = [permutation_test(a, b) for a, b in combinations(scores, 2)]
    wrong = sum((holm(column) <= 0.05).any() for column in np.array(p).T)
    unguarded = (np.array(p) <= 0.05).any(0).sum()
    assert wrong <= 21 and unguarded > 60  # 5 % and two standard deviations; 20 % without


# --- what a user can get wrong -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: resample([2, 1], [0, 0], [1]), "do not ascend"),
        (lambda: resample([NAN], [0], [1]), "do not ascend"),
        (lambda: resample([1, 2], [0], [1]), "same length"),
        (lambda: resample([1, 2], [0, 0], [1], end=1), "before its last point"),
        (lambda: common_grid([([], [])]), "no learning curve"),
        (lambda: normalize([1], 2, 2), "two different numbers"),
        (lambda: normalize([1], NAN, 2), "two different numbers"),
        (lambda: bootstrap([]), "no run"),
        (lambda: bootstrap([1.0, math.inf]), "1 scores are not finite"),
        (lambda: bootstrap([1.0, 2.0], confidence=95), "confidence 95"),
        (lambda: permutation_test([1.0, NAN], [NAN, 2.0]), "1 scores are not finite"),
        (lambda: permutation_test([], [2.0]), "no run"),
        (lambda: probability_of_improvement([1.0, NAN], [2.0]), "not finite"),
        (lambda: probability_of_improvement([[1.0], [2.0]], [2.0]), "same environments"),
        (lambda: holm([0.1, NAN]), "p-value"),
    ],
)
def test_a_readable_refusal(call: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call()
