"""Do the statistics do what they promise? Simulations with known truth: coverage, familywise error, power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from ablations.contrasts import PRIMARY, arm_of, subsets
from ablations.inference import holm, paired_test, power, spent_alpha
from ablations.statistics import t_interval

ROUNDS = 4000


@pytest.mark.parametrize("n", [5, 8, 12])
@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_intervals_of_paired_differences_cover(n: int, shape: str):
    """Differences of two arms whose seeds share a part; skewed: of gamma-distributed seeds (skewness 1.4)."""
    rng = np.random.default_rng(n)
    draw = rng.standard_normal if shape == "normal" else (lambda size: rng.gamma(2.0, size=size) / np.sqrt(2))
    shared = draw((ROUNDS, n))
    differences = 0.05 + (draw((ROUNDS, n)) + shared) - (draw((ROUNDS, n)) + shared)
    inside = [interval.low <= 0.05 <= interval.high for interval in map(t_interval, differences)]
    assert 0.93 <= np.mean(inside) <= 0.97


def test_one_arm_of_very_skewed_seeds_is_undercovered_and_known_to_be():
    """The limit of the t-interval: exponential seeds of a single arm, n = 5. Differences, which are tested, are less skewed."""
    rng = np.random.default_rng(0)
    values = rng.exponential(size=(ROUNDS, 5))
    covered = np.mean([interval.low <= 1.0 <= interval.high for interval in map(t_interval, values)])
    assert 0.85 <= covered <= 0.91


def family_p(outcomes: np.ndarray) -> np.ndarray:
    """p of the primary family ``[rounds, 4]`` from outcomes ``[rounds, seeds, 8]`` in the order of `subsets`."""
    arms = [arm_of(on) for on in subsets()]
    weights = np.array([[contrast.get(arm, 0.0) for arm in arms] for contrast in PRIMARY.values()])
    x = outcomes @ weights.T
    n = x.shape[1]
    statistic = x.mean(axis=1) / (x.std(axis=1, ddof=1) / np.sqrt(n))
    return 2 * student.sf(np.abs(statistic), n - 1)


def test_the_quick_p_is_that_of_the_report():
    outcomes = np.random.default_rng(1).standard_normal((3, 8, 8))
    arms = [arm_of(on) for on in subsets()]
    quick = family_p(outcomes)
    for k, contrast in enumerate(PRIMARY.values()):
        x = sum(weight * outcomes[0, :, arms.index(arm)] for arm, weight in contrast.items())
        assert quick[0, k] == pytest.approx(paired_test(x).t_p)


@pytest.mark.parametrize("seeds", [5, 8])
def test_familywise_error_with_shuffled_labels(seeds: int):
    """Arms' labels shuffled within every seed of one real-looking table: no effect is left, whatever the outcomes were."""
    rng = np.random.default_rng(seeds)
    table = 0.1 + 0.05 * rng.gamma(2.0, size=(ROUNDS, seeds, 1)) + 0.03 * rng.gamma(2.0, size=(ROUNDS, seeds, 8))
    null = rng.permuted(table, axis=2)
    rejected = [min(holm(dict(enumerate(p))).values()) < 0.05 for p in family_p(null)]  # type: ignore[arg-type]
    assert np.mean(rejected) <= 0.055


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
