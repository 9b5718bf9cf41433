"""Simulations with known truth of the statistics: coverage, family-wise error rate, power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import skew
from scipy.stats import t as student

from ablations.components import factorial
from ablations.stats.family import ALPHA, MARGIN, family
from ablations.stats.power import power
from ablations.stats.statistics import t_interval
from reports.verdicts import simultaneous, verdict

ROUNDS = 4000
SHAPES = {
    "normal": lambda rng, size: rng.standard_normal(size) - rng.standard_normal(size),
    "skewed differences": lambda rng, size: rng.gamma(2.0, size=size) - 0.5 * rng.gamma(2.0, size=size) - 1.0,
    "skewed arm": lambda rng, size: rng.gamma(4.0, size=size) - 4.0,
}
"""Seeds around a true mean of 0. Two arms of unequal spread differ with a skewness of .9; the single arm's is 1. (Arms of equal
spread have symmetric differences, however skewed they are: those would test nothing.)"""
LS = np.array([arm == "rrpo" or "ls" in arm.split("_") for arm in factorial()], float)
EAM = np.array([arm == "rrpo" or "eam" in arm.split("_") for arm in factorial()], float)
TRUTHS = {"nulls": 0 * LS, "one at the margin": MARGIN * LS, "two at the margin, opposed": MARGIN * (LS - EAM)}
"""Gains by arm of the factorial. With gains at the margin, 'equivalent' is false; with gains of 0, any difference is false."""
BASE, COLLAPSE, KEPT = 0.6, 0.1, 0.25
"""Clean success; probability that a seed of an arm collapses, and the share of its clean success that remains."""


@pytest.mark.parametrize("n", [5, 8, 12])
@pytest.mark.parametrize("shape", SHAPES)
def test_intervals_cover(n: int, shape: str):
    rng = np.random.default_rng(n)
    values = SHAPES[shape](rng, (5 * ROUNDS, n))
    assert (skew(values.ravel()) > 0.8) == (shape != "normal"), "the skewed outcomes are skewed"
    half = student.ppf(0.975, n - 1) * values.std(axis=1, ddof=1) / np.sqrt(n)
    assert t_interval(values[0])[1:3] == pytest.approx((values[0].mean() - half[0], values[0].mean() + half[0]))
    assert 0.93 <= np.mean(np.abs(values.mean(axis=1)) <= half) <= 0.97


def test_one_arm_of_very_skewed_seeds_is_undercovered_and_known_to_be():
    """A limit of the t-interval: exponential outcomes (skewness 2) of a single arm, n = 5. The tests use differences."""
    rng = np.random.default_rng(0)
    values = rng.exponential(size=(ROUNDS, 5))
    covered = np.mean([interval.low <= 1.0 <= interval.high for interval in map(t_interval, values)])
    assert 0.85 <= covered <= 0.91


def weights() -> np.ndarray:
    """Return the family's contrasts ``[7, 8]``, with the arms in the order of `factorial`."""
    return np.array([[contrast.get(arm, 0.0) for arm in factorial()] for contrast in family().values()])


def intervals(outcomes: np.ndarray, m: int = len(family())) -> tuple[np.ndarray, np.ndarray]:
    """Bounds ``[rounds, 7]`` of the family's intervals at 1 - .05 / m, from outcomes ``[rounds, seeds, 8]``."""
    x = outcomes @ weights().T
    n = x.shape[1]
    half = student.ppf(1 - ALPHA / m / 2, n - 1) * x.std(axis=1, ddof=1) / np.sqrt(n)
    return x.mean(axis=1) - half, x.mean(axis=1) + half


def claims(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return what intervals claim: 1 better, -1 worse, 0 equivalent, NaN undecided."""
    equivalent = (low > -MARGIN) & (high < MARGIN)
    return np.where(low > 0, 1.0, np.where(high < 0, -1.0, np.where(equivalent, 0.0, np.nan)))


def false(low: np.ndarray, high: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return whether a round ``[rounds]`` makes a false claim: a wrong or reversed difference, or a wrong equivalence."""
    claimed, tiny = claims(low, high), 1e-12
    within = (low > -MARGIN) & (high < MARGIN)
    wrong = (
        ((claimed == 1) & (truth <= tiny))
        | ((claimed == -1) & (truth >= -tiny))
        | (within & (abs(truth) >= MARGIN - tiny))
    )
    return wrong.any(axis=1)


def seeds(truth: np.ndarray, shape: str, n: int, sd: float, arm: str) -> tuple[np.ndarray, np.ndarray]:
    """Return outcomes ``[rounds, n, 8]``, with a level per seed and another shape in one arm (or all), and their true means."""
    rng = np.random.default_rng(n)
    means = BASE + truth
    x = means + 0.05 * rng.standard_normal((ROUNDS, n, 1)) + sd * rng.standard_normal((ROUNDS, n, 8))
    k = factorial().index(arm)
    if shape == "skewed":
        x[:, :, k] = means[k] - 2 * sd * (rng.gamma(2.0, size=(ROUNDS, n)) - 2.0) / np.sqrt(2.0)
    broken = rng.random((ROUNDS, n, 8)) < COLLAPSE
    collapsed = {"one collapses": np.arange(8) == k, "all collapse": np.ones(8, bool)}.get(shape, np.zeros(8, bool))
    x = np.where(broken & collapsed, KEPT * x, x)
    return x, means * np.where(collapsed, 1 - COLLAPSE * (1 - KEPT), 1.0)


def test_the_quick_claims_are_those_of_the_report():
    spread = np.linspace(0.002, 0.04, 20)[:, None, None]
    outcomes = BASE + spread * np.random.default_rng(1).standard_normal((20, 8, 8)) + MARGIN * LS
    low, high = intervals(outcomes)
    words = {1.0: "better", -1.0: "worse", 0.0: "equivalent"}
    verdicts = set()
    for claimed, row in zip(claims(low, high), outcomes, strict=True):
        for claim, weight in zip(claimed, weights(), strict=True):
            report = verdict(row @ weight, simultaneous(family())).partition(" (")[0]
            assert report == words.get(claim, "undecided")
            verdicts.add(report)
    assert {"better", "equivalent", "undecided"} <= verdicts


@pytest.mark.parametrize("n", [5, 8, 16])
def test_the_familys_intervals_cover_all_at_once(n: int):
    x, truth = seeds(TRUTHS["one at the margin"], "normal", n, 0.045, "rrpo")
    low, high = intervals(x)
    covered = ((low <= truth @ weights().T) & (truth @ weights().T <= high)).all(axis=1)
    assert covered.mean() >= 0.945
    low, high = intervals(x, m=1)
    apart = ((low <= truth @ weights().T) & (truth @ weights().T <= high)).all(axis=1)
    assert apart.mean() < 0.9, "individual intervals do not"


@pytest.mark.parametrize("shape", ["normal", "skewed", "one collapses", "all collapse"])
@pytest.mark.parametrize("name", TRUTHS)
@pytest.mark.parametrize(("n", "sd"), [(8, 0.045), (16, 0.02)])
def test_any_false_claim_is_rare(n: int, sd: float, name: str, shape: str):
    for arm in ("rrpo", "diffro", "eam_adv", "ls") if shape in ("skewed", "one collapses") else ("rrpo",):
        x, truth = seeds(TRUTHS[name], shape, n, sd, arm)
        assert false(*intervals(x), truth @ weights().T).mean() <= 0.055, arm


def test_a_collapse_that_no_seed_showed_is_not_covered_and_known_to_be():
    """A limit: one arm gains what its rare collapses cost, and .9^8 = 43 % of grids of eight seeds contain no collapse."""
    at = factorial().index("rrpo")
    gain = BASE / (1 - COLLAPSE * (1 - KEPT)) - BASE
    x, truth = seeds(gain * (np.arange(8) == at), "one collapses", 8, 0.02, "rrpo")
    assert truth == pytest.approx(BASE)
    assert 0.3 < false(*intervals(x), 0 * weights() @ truth).mean() < 0.5


@pytest.mark.parametrize("n", [5, 8])
def test_shuffled_labels_give_no_claim(n: int):
    """Shuffling the arms' labels within each seed of a realistic table removes all effects, whatever the outcomes were."""
    rng = np.random.default_rng(n)
    table = 0.1 + 0.05 * rng.gamma(2.0, size=(ROUNDS, n, 1)) + 0.03 * rng.gamma(2.0, size=(ROUNDS, n, 8))
    null = rng.permuted(table, axis=2)
    assert false(*intervals(null), np.zeros(7)).mean() <= 0.055
    assert false(*intervals(null, m=1), np.zeros(7)).mean() > 0.1, (
        "with 95 % intervals the family-wise error rate is too high"
    )


def test_power_is_as_predicted():
    rng = np.random.default_rng(2)
    for effect, sd, n in ((0.03, 0.02, 5), (0.03, 0.03, 8), (0.03, 0.04, 12)):
        x = effect + sd * rng.standard_normal((ROUNDS, n))
        statistic = x.mean(axis=1) / (x.std(axis=1, ddof=1) / np.sqrt(n))
        rejected = np.mean(2 * student.sf(np.abs(statistic), n - 1) < 0.05)
        assert rejected == pytest.approx(power(effect, sd, n), abs=0.025)
