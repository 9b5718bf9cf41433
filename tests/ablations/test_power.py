"""Planning of seeds and looks: power against simulation, seeds that decide, alpha that adds up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ablations.inference import equivalence
from ablations.power import detectable, power, seeds_to_decide, spent_alpha, spread_bound


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


def test_an_alpha_of_next_to_nothing_has_numbers_or_none_and_no_traceback():
    for n, alpha in ((2, 1e-18), (5, 1e-18), (40, 1e-30)):
        assert power(detectable(1.0, n, alpha), 1.0, n, alpha) == pytest.approx(0.8, abs=1e-6)
    assert all(math.isnan(detectable(1.0, n, alpha)) for n in (2, 8) for alpha in (0.0, 5e-324, 1e-300))
    n = seeds_to_decide(1.0, 1.0, 1e-18)
    assert n is not None
    assert stats.t.isf(5e-19, n - 1) / math.sqrt(n) <= 0.5 < stats.t.isf(5e-19, n - 2) / math.sqrt(n - 1)
    assert (power(1.0, 1.0, 8, 0.0), seeds_to_decide(1.0, 1.0, 0.0)) == (0.0, None)


@pytest.mark.parametrize("truth", [0.0, 0.5, 1.0, 1.5, 2.5, 3.0, 6.0])
def test_the_seeds_that_decide_decide_whatever_the_truth_is(truth: float):
    """Spread known to be 3 (points), margin 3, level .0125: t finds a difference or TOST denies one."""
    alpha, margin, sd = 0.0125, 3.0, 3.0
    n = seeds_to_decide(sd, margin, alpha)
    assert n is not None

    def decided(seeds: int) -> float:
        x = np.random.default_rng(seeds).normal(0, 1, (300, seeds))
        x = (
            truth
            + sd * (x - x.mean(1, keepdims=True)) / x.std(1, ddof=1, keepdims=True)
            + sd * x[:, :1] / math.sqrt(seeds)
        )
        return float(
            np.mean([stats.ttest_1samp(row, 0).pvalue < alpha or equivalence(row, margin) < alpha for row in x])
        )

    assert decided(n) == 1.0
    if truth == 1.5:
        assert decided(n // 2) < 0.9
    assert seeds_to_decide(sd, 0.1, most=50) is None


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
    assert spent_alpha([2, 40])[0] == pytest.approx(1.864e-18, rel=1e-3, abs=0), "2 (1 - ndtr(z)) would be 0"
    for bad in ([], [8, 8], [8, 4]):
        with pytest.raises(ValueError, match="rising"):
            spent_alpha(bad)
