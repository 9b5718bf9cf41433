"""Do the statistics do what they promise? Simulations with known truth: coverage, familywise error, power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import skew
from scipy.stats import t as student

from ablations.components import factorial
from ablations.family import family
from ablations.inference import holm, paired_test
from ablations.power import power, spent_alpha
from ablations.statistics import t_interval

ROUNDS = 4000


SHAPES = {
    "normal": lambda rng, size: rng.standard_normal(size) - rng.standard_normal(size),
    "skewed differences": lambda rng, size: rng.gamma(2.0, size=size) - 0.5 * rng.gamma(2.0, size=size) - 1.0,
    "skewed arm": lambda rng, size: rng.gamma(4.0, size=size) - 4.0,
}
"""Seeds around a true mean of 0. Two arms of unequal spread differ with a skewness of .9; the single arm's is 1. (Arms of equal
spread have symmetric differences, however skewed they are: those would test nothing.)"""


@pytest.mark.parametrize("n", [5, 8, 12])
@pytest.mark.parametrize("shape", SHAPES)
def test_intervals_cover(n: int, shape: str):
    rng = np.random.default_rng(n)
    values = SHAPES[shape](rng, (5 * ROUNDS, n))
    assert (skew(values.ravel()) > 0.8) == (shape != "normal"), "the skewed ones are skewed"
    half = student.ppf(0.975, n - 1) * values.std(axis=1, ddof=1) / np.sqrt(n)
    assert t_interval(values[0])[1:3] == pytest.approx((values[0].mean() - half[0], values[0].mean() + half[0]))
    assert 0.93 <= np.mean(np.abs(values.mean(axis=1)) <= half) <= 0.97


def test_one_arm_of_very_skewed_seeds_is_undercovered_and_known_to_be():
    """The limit of the t-interval: exponential seeds (skewness 2) of a single arm, n = 5. What is tested are differences."""
    rng = np.random.default_rng(0)
    values = rng.exponential(size=(ROUNDS, 5))
    covered = np.mean([interval.low <= 1.0 <= interval.high for interval in map(t_interval, values)])
    assert 0.85 <= covered <= 0.91


def family_p(outcomes: np.ndarray) -> np.ndarray:
    """p of the primary family ``[rounds, 4]`` from outcomes ``[rounds, seeds, 8]`` in the order of `factorial`."""
    arms = factorial()
    weights = np.array([[contrast.get(arm, 0.0) for arm in arms] for contrast in family().values()])
    x = outcomes @ weights.T
    n = x.shape[1]
    statistic = x.mean(axis=1) / (x.std(axis=1, ddof=1) / np.sqrt(n))
    return 2 * student.sf(np.abs(statistic), n - 1)


def test_the_quick_p_is_that_of_the_report():
    outcomes = np.random.default_rng(1).standard_normal((3, 8, 8))
    arms = factorial()
    quick = family_p(outcomes)
    for k, contrast in enumerate(family().values()):
        x = sum(weight * outcomes[0, :, arms.index(arm)] for arm, weight in contrast.items())
        assert quick[0, k] == pytest.approx(paired_test(x).t_p)


@pytest.mark.parametrize("seeds", [5, 8])
def test_familywise_error_with_shuffled_labels(seeds: int):
    """Arms' labels shuffled within every seed of one real-looking table: no effect is left, whatever the outcomes were."""
    rng = np.random.default_rng(seeds)
    table = 0.1 + 0.05 * rng.gamma(2.0, size=(ROUNDS, seeds, 1)) + 0.03 * rng.gamma(2.0, size=(ROUNDS, seeds, 8))
    null = rng.permuted(table, axis=2)
    p = family_p(null)
    rejected = [min(holm(dict(enumerate(row))).values()) < 0.05 for row in p]  # type: ignore[arg-type]
    assert np.mean(rejected) <= 0.055
    assert np.mean(p.min(axis=1) < 0.05) > 0.1, "without Holm the family fails"


def test_power_is_as_predicted():
    rng = np.random.default_rng(2)
    for effect, sd, n in ((0.03, 0.02, 5), (0.03, 0.03, 8), (0.03, 0.04, 12)):
        x = effect + sd * rng.standard_normal((ROUNDS, n))
        statistic = x.mean(axis=1) / (x.std(axis=1, ddof=1) / np.sqrt(n))
        found = np.mean(2 * student.sf(np.abs(statistic), n - 1) < 0.05)
        assert found == pytest.approx(power(effect, sd, n), abs=0.025)


def test_two_looks_spend_no_more_than_alpha():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((ROUNDS, 16))
    first, last = spent_alpha([8, 16])

    def p(values: np.ndarray) -> np.ndarray:
        n = values.shape[1]
        return 2 * student.sf(np.abs(values.mean(axis=1) / (values.std(axis=1, ddof=1) / np.sqrt(n))), n - 1)

    assert np.mean((p(x[:, :8]) < first) | (p(x) < last)) <= 0.055
    assert np.mean((p(x[:, :8]) < 0.05) | (p(x) < 0.05)) > 0.06, "peeking without spending is what this prevents"
