"""Intervals and shares of paired differences over seeds, as pure functions on arrays."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ablations.stats.power import spread_bound
from ablations.stats.statistics import Interval


def varies(values: np.ndarray) -> bool:
    """Return whether the values differ by more than rounding errors."""
    return float(np.ptp(values)) > 1e-12 * max(1.0, float(np.abs(values).max()))


def wilson(successes: int, n: int) -> Interval:
    """Return Wilson's 95 % score interval of a proportion, for example of the seeds that hacked; NaN for n = 0."""
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(0.95, "wilson")
    return Interval(successes / n, float(interval.low), float(interval.high), n)


class VarianceComponent(NamedTuple):
    """A variance component."""

    variance: float
    """Estimate; 0 if it would be negative."""
    sd_bound: float
    """One-sided 80 % upper confidence bound of its square root."""


def nested_components(y: ArrayLike) -> list[VarianceComponent]:
    """Return the variance components of a balanced nested design ``y [A, B, C, ...]``, outermost first (analysis of variance).

    The expected mean square of a level equals that of the next inner level plus (number of values below it) x (its component).
    The bound is that of the mean square alone (chi-square), and hence too large, except at the innermost level.
    """
    means, within, components = np.asarray(y, float), 0.0, []
    below = 1
    while means.ndim:
        outer = means.mean(axis=-1)
        freedom = outer.size * (means.shape[-1] - 1)
        square = below * float(((means - outer[..., None]) ** 2).sum()) / freedom
        bound = spread_bound(math.sqrt(square / below), freedom + 1)
        components.append(VarianceComponent(max(0.0, (square - within) / below), bound))
        means, within, below = outer, square, below * means.shape[-1]
    return components[::-1]


def improvement(x: ArrayLike) -> float:
    """Return the paired probability of improvement: the share of seeds that improved; ties count half."""
    values = np.asarray(x, float)
    return float(np.mean((values > 0) + 0.5 * (values == 0)))


def correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Return Pearson's r of ``x [n]`` and ``y [n]``, paired by seed, over pairs in which both are finite.

    NaN for fewer than three such pairs, or if either does not vary.
    """
    pairs = np.column_stack([np.asarray(x, float), np.asarray(y, float)])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return math.nan
    return float(np.corrcoef(pairs.T)[0, 1])


def ratio_of_means(x: ArrayLike, y: ArrayLike) -> Interval:
    """Return mean(x) / mean(y) of ``x [n]`` and ``y [n]``, paired by seed, with Fieller's 95 % interval (1954).

    The interval contains all r for which the t test does not reject mean(x - r y) = 0. All values are NaN if y's own interval
    contains zero, because the ratio's interval is then unbounded, and for fewer than two pairs. Pairs with a non-finite value are
    left out.
    """
    pairs = np.column_stack([np.asarray(x, float), np.asarray(y, float)])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    n = len(pairs)
    if n < 2:
        return Interval(math.nan, math.nan, math.nan, n)
    from scipy.special import stdtrit

    (mx, my), covariance = pairs.mean(axis=0), np.cov(pairs.T)
    scale = float(stdtrit(n - 1, 0.975)) ** 2 / n
    a, b, c = my**2 - scale * covariance[1, 1], mx * my - scale * covariance[0, 1], mx**2 - scale * covariance[0, 0]
    if a <= 0:
        return Interval(math.nan, math.nan, math.nan, n)
    half = math.sqrt(max(0.0, b * b - a * c))
    return Interval(float(mx / my), float((b - half) / a), float((b + half) / a), n)
