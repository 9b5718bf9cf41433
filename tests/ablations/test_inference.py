"""Tests, intervals and effect sizes against published worked examples, independent code and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from ablations.inference import (
    detectable,
    differences,
    effect_size,
    equivalence,
    holm,
    improvement,
    iqm,
    paired_test,
    power,
    seeds_needed,
    sign_flip,
    spent_alpha,
    spread_bound,
    wilson,
)
from ablations.statistics import t_interval

DARWIN = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]) / 8
"""Darwin's maize in inches: Fisher (The Design of Experiments, 1935) gives t = 2.148 and an exact permutation p of .05267."""


def test_darwins_maize():
    found = paired_test(DARWIN)
    assert found.t_p == pytest.approx(0.0497, abs=1e-4)
    assert found.sign_flip_p == pytest.approx(1726 / 2**15, abs=1e-9)
    assert found.sign_flip_floor == 2 / 2**15
    assert found.mean.mean == pytest.approx(2.617, abs=1e-3)
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(DARWIN, mode="exact").pvalue)


@pytest.mark.parametrize("n", [2, 5, 8])
def test_all_of_one_sign_gives_the_floor(n: int):
    assert sign_flip(np.arange(1, n + 1)) == 2 / 2**n == paired_test(-np.arange(1.0, n + 1)).sign_flip_floor
    assert sign_flip(np.zeros(n)) == 1.0


def test_sign_flip_agrees_with_scipys_permutation_test():
    x = np.random.default_rng(0).normal(0.4, 1, 8)
    theirs = stats.permutation_test((x,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(x) == pytest.approx(theirs.pvalue)
    with pytest.raises(ValueError, match="at most 20"):
        sign_flip(np.ones(21))


def test_pairs_are_by_position_and_incomplete_ones_are_left_out():
    assert differences([1, 2, math.nan, 4], [0, math.nan, 1, 1]).tolist() == [1, 3]
    with pytest.raises(ValueError, match="same seeds"):
        differences([1, 2], [1])


def test_holm_against_his_example():
    """Holm's step-down on (.01, .02, .03, .04): adjusted .04, .06, .06, .06; an untestable member still counts."""
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.02}) == pytest.approx(
        {"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.06}
    )
    adjusted = holm({"a": 0.01, "b": math.nan})
    assert adjusted["a"] == 0.02
    assert math.isnan(adjusted["b"])


def test_effect_size_covers_and_is_nearly_unbiased():
    """d_z = .8 at n = 8: the corrected mean comes back, and the interval covers 95 %."""
    rng, found = np.random.default_rng(1), []
    for _ in range(600):
        found.append(effect_size(rng.normal(0.8, 1, 8)))
    assert np.mean([e.g_z for e in found]) == pytest.approx(0.8, abs=0.06)
    correction = math.gamma(3.5) / (math.sqrt(3.5) * math.gamma(3))
    covered = np.mean([e.low <= correction * 0.8 <= e.high for e in found])
    assert 0.925 < covered < 0.975
    assert math.isnan(effect_size([1.0, 1.0]).g_z)


def test_equivalence_is_two_one_sided_tests():
    x = np.array([0.01, -0.005, 0.004, 0.002, -0.001])
    half = stats.t.ppf(0.95, 4) * x.std(ddof=1) / math.sqrt(5)
    edge = max(abs(x.mean() - half), abs(x.mean() + half))  # the 90 % interval just fits: p = .05
    assert equivalence(x, edge) == pytest.approx(0.05)
    assert equivalence(x, 0.03) < 0.01 < equivalence(x + 0.03, 0.03)
    with pytest.raises(ValueError, match="margin"):
        equivalence(x, 0.0)


def test_wilson_against_newcombes_example():
    """Newcombe (1998): 81 of 263 gives .2553 to .3662, 0 of 20 gives 0 to .1611."""
    assert wilson(81, 263)[1:3] == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20)[1:3] == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0).n == 0


def test_descriptive_numbers_by_hand():
    assert iqm([0, 1, 2, 3, 4, 5, 6, 100]) == 3.5
    assert improvement([1, -1, 0, 2]) == 0.625


def test_power_is_what_simulation_gives_and_plans_agree_with_it():
    rng = np.random.default_rng(2)
    x = rng.normal(0.9, 1, (4000, 8))
    seen = np.mean(stats.ttest_1samp(x, 0, axis=1).pvalue < 0.05)
    assert power(0.9, 1.0, 8) == pytest.approx(seen, abs=0.025)
    assert power(detectable(1.0, 8), 1.0, 8) == pytest.approx(0.8, abs=1e-6)
    for n in (2, 3, 5, 30):
        for alpha in (0.05, 0.0125):
            assert power(detectable(0.0275, n, alpha), 0.0275, n, alpha) == pytest.approx(0.8, abs=1e-6)
    assert power(10.0, 1.0, 8) == pytest.approx(1.0), "scipy's noncentral t gives NaN there"
    n = seeds_needed(0.9, 1.0)
    assert n is not None
    assert power(0.9, 1.0, n) >= 0.8 > power(0.9, 1.0, n - 1)
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(1e-3, 1.0, most=50) is None


def test_spread_bound_holds_as_often_as_it_says():
    rng = np.random.default_rng(3)
    held = np.mean([spread_bound(rng.normal(0, 1, 5)) >= 1 for _ in range(2000)])
    assert held == pytest.approx(0.8, abs=0.03)


def test_spending_adds_up_and_starts_small():
    found = spent_alpha([8, 12, 16])
    assert sum(found) == pytest.approx(0.05)
    assert spent_alpha([8, 16])[0] == pytest.approx(0.00557, abs=1e-5)  # Lan and DeMets (1983): half the information
    assert found[2] > found[1] > found[0] > 0
    assert spent_alpha([8]) == pytest.approx([0.05])
    for bad in ([], [8, 8], [8, 4]):
        with pytest.raises(ValueError, match="rising"):
            spent_alpha(bad)


@pytest.mark.parametrize("n", [5, 8, 12])
def test_intervals_cover(n: int):
    """Normal seeds: 93 to 97 %. Skewed ones (gamma, skewness 1): at least 91 %, which small n cannot better."""
    rng = np.random.default_rng(n)
    for draw, least in ((rng.normal(0, 1, (3000, n)), 0.93), (rng.gamma(4, 1, (3000, n)) - 4, 0.91)):
        inside = [interval.low <= 0 <= interval.high for interval in map(t_interval, draw)]
        assert least < np.mean(inside) < 0.97


@pytest.mark.parametrize("n", [2, 3, 4, 8])
@pytest.mark.parametrize("noise", [1e-6, 1e-3, 1e-2, 0.03, 0.1, 0.3])
def test_effect_sizes_have_their_interval_however_large(n: int, noise: float):
    """Far out scipy's noncentral t is not a number; the interval still holds the estimate."""
    for sign in (1, -1):
        x = sign * (0.1 + noise * np.random.default_rng(n).standard_normal(n))
        found = effect_size(x)
        if n > 2:
            assert found.low < found.g_z < found.high
            assert effect_size(-x) == pytest.approx((-found.g_z, -found.high, -found.low), rel=1e-6)
