"""Power against simulation, the number of seeds that detect a difference, and the bound of a standard deviation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ablations.stats.power import MOST, detectable, power, seeds_needed, spread_bound


def test_power_is_what_simulation_gives_and_plans_agree_with_it():
    rng = np.random.default_rng(2)
    x = rng.normal(0.9, 1, (4000, 8))
    seen = np.mean(stats.ttest_1samp(x, 0, axis=1).pvalue < 0.05)
    assert power(0.9, 1.0, 8) == pytest.approx(seen, abs=0.025)
    assert power(detectable(1.0, 8), 1.0, 8) == pytest.approx(0.8, abs=1e-6)
    for n in (2, 3, 5, 30):
        for alpha in (0.05, 0.05 / 7):
            assert power(detectable(0.0275, n, alpha), 0.0275, n, alpha) == pytest.approx(0.8, abs=1e-6)
    assert power(10.0, 1.0, 8) == pytest.approx(1.0), "scipy's noncentral t gives NaN there"
    assert math.isnan(detectable(0.0, 8))
    assert math.isnan(power(1.0, 1.0, 1))


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 7])
def test_the_seeds_needed_are_the_fewest_that_have_the_power(alpha: float):
    n = seeds_needed(0.05, 0.066, alpha)
    assert n is not None
    assert power(0.05, 0.066, n, alpha) >= 0.8 > power(0.05, 0.066, n - 1, alpha)
    assert seeds_needed(0.05, 0.0001, alpha) == 2
    assert seeds_needed(0.05, 5.0, alpha) is None, f"more than {MOST}"


def test_spread_bound_holds_as_often_as_it_says():
    rng = np.random.default_rng(3)
    coverage = np.mean([spread_bound(sd, 5) >= 1 for sd in rng.normal(0, 1, (2000, 5)).std(axis=1, ddof=1)])
    assert coverage == pytest.approx(0.8, abs=0.03)
    assert spread_bound(2.0, 8) == pytest.approx(2.0 * math.sqrt(7 / stats.chi2.ppf(0.2, 7)))
    assert math.isnan(spread_bound(1.0, 1))
