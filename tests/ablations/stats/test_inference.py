"""Intervals against independent code, published examples and simulation."""

import math

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy import stats

from ablations.stats.inference import correlation, improvement, nested_components, ratio_of_means, wilson
from ablations.stats.power import spread_bound


def test_correlation_of_pairs():
    x, y = [1.0, 2.0, 4.0, math.nan], [2.0, 3.0, 7.0, 1.0]
    assert correlation(x, y) == pytest.approx(stats.pearsonr(x[:3], y[:3]).statistic)
    assert math.isnan(correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    assert math.isnan(correlation([1.0, 2.0], [1.0, 2.0]))


def test_fiellers_interval_holds_what_the_t_test_does_not_reject():
    """Brute force: the bounds are the ratios r at which a paired t test of x - r y = 0 gives p = .05."""
    rng = np.random.default_rng(5)
    y = rng.normal(1.0, 0.3, 8)
    x = 0.4 * y + rng.normal(0, 0.15, 8)
    interval = ratio_of_means(x, y)
    assert interval.mean == pytest.approx(x.mean() / y.mean())
    assert interval.low < interval.mean < interval.high
    for bound in (interval.low, interval.high):
        assert stats.ttest_1samp(x - bound * y, 0).pvalue == pytest.approx(0.05)
    assert ratio_of_means([*x, 1.0], [*y, math.nan]) == interval
    assert math.isnan(ratio_of_means(x, y - y.mean()).mean), "a gap that may be zero has no shares"


def test_wilson_against_newcombes_example():
    """Newcombe (1998): 81 of 263 gives .2553 to .3662, 0 of 20 gives 0 to .1611."""
    assert wilson(81, 263)[1:3] == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20)[1:3] == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0).n == 0


def test_improvement_by_hand():
    assert improvement([1, -1, 0, 2]) == 0.625


def variances(y: ArrayLike) -> list[float]:
    return [part.variance for part in nested_components(y)]


def test_components_of_a_nested_design_by_hand():
    """Mean squares 128, 16 and 2: (128 - 16) / 4, (16 - 2) / 2 and 2."""
    y = [[[1, 3], [5, 7]], [[9, 11], [13, 15]]]
    assert variances(y) == pytest.approx([28, 7, 2])
    assert variances(np.array(y) + 100.0) == pytest.approx([28, 7, 2])
    assert variances([[1, 3], [1, 3]]) == [0.0, 2.0], "groups more similar than by chance: their variance is 0"
    assert variances([1.0, 2.0, 6.0]) == pytest.approx([7.0]), "one level: the variance"
    bounds = [part.sd_bound for part in nested_components(y)]
    assert bounds == pytest.approx([spread_bound(math.sqrt(ms), n) for ms, n in ((32, 2), (8, 3), (2, 5))])


def test_bounds_of_components_hold_often_enough():
    """Of 2,000 designs like that of the pilot, at least 80 % less three standard errors are covered at each level."""
    rng = np.random.default_rng(0)
    sds, covered = (2.0, 0.5, 1.0), np.zeros(3)
    for _ in range(2000):
        y = sum(
            sd * rng.standard_normal(shape) for sd, shape in zip(sds, ((4, 1, 1), (4, 2, 1), (4, 2, 2)), strict=True)
        )
        covered += [part.sd_bound >= sd for part, sd in zip(nested_components(y), sds, strict=True)]
    assert (covered / 2000 > 0.8 - 3 * (0.16 / 2000) ** 0.5).all()
    assert covered[2] / 2000 < 0.83, "at the innermost level the bound is exact"


def test_components_are_found_again_in_a_large_design():
    rng = np.random.default_rng(0)
    y = 3 * rng.standard_normal((400, 1, 1)) + rng.standard_normal((400, 3, 1)) + 2 * rng.standard_normal((400, 3, 3))
    assert variances(y) == pytest.approx([9, 1, 4], rel=0.15)
