"""Intervals and effect sizes of paired seed differences, as pure functions on arrays."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ablations.stats.statistics import Interval

FAR = 25.0
"""Largest |t| that is given to the noncentral t distribution."""


class Effect(NamedTuple):
    """Standardised paired effect."""

    g_z: float
    """Mean over standard deviation of the differences (d_z), with Hedges' correction."""
    low: float
    high: float
    """95 % interval through the noncentral t distribution, with the same correction."""


def varies(values: np.ndarray) -> bool:
    """Whether there is spread beyond rounding."""
    return float(np.ptp(values)) > 1e-12 * max(1.0, float(np.abs(values).max()))


def effect_size(x: ArrayLike, level: float = 0.95) -> Effect:
    """Hedges-corrected d_z of differences ``[n]`` and its interval by inverting the noncentral t (Cumming 2012).

    Beyond |t| of `FAR`, where scipy's noncentral t breaks down, the interval is the usual normal approximation.
    """
    values = np.asarray(x, float)
    n = len(values)
    if n < 2 or not varies(values):
        return Effect(math.nan, math.nan, math.nan)
    from scipy.optimize import brentq
    from scipy.special import gammaln, ndtri
    from scipy.stats import nct

    df = n - 1
    d = float(values.mean() / values.std(ddof=1))
    t = d * math.sqrt(n)
    correction = math.exp(gammaln(df / 2) - gammaln((df - 1) / 2)) / math.sqrt(df / 2) if df > 1 else math.nan

    def below(delta: float) -> float:
        share = float(nct.cdf(t, df, delta))
        return share if math.isfinite(share) else float(delta < t)  # scipy gives up far out, where it is 1 or 0

    def bound(tail: float) -> float:
        reach = 6 * math.sqrt(1 + t * t / (2 * df))  # standard errors
        return float(brentq(lambda delta: below(delta) - tail, t - reach, t + reach))

    if abs(t) < FAR:
        low, high = bound((1 + level) / 2), bound((1 - level) / 2)
    else:
        half = float(ndtri((1 + level) / 2)) * math.sqrt(1 + t * t / (2 * df))
        low, high = t - half, t + half
    return Effect(correction * d, correction * low / math.sqrt(n), correction * high / math.sqrt(n))


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion, as for 'seeds that hacked'."""
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    from scipy.stats import binomtest

    found = binomtest(successes, n).proportion_ci(level, "wilson")
    return Interval(successes / n, float(found.low), float(found.high), n)


def nested_components(y: ArrayLike) -> list[float]:
    """Variance components of a balanced nested design ``y [A, B, C, ...]``, outermost first (analysis of variance).

    E(mean square of a level) = the expected mean square of the level within + (values below) x (its component); an estimate below
    zero counts as 0.
    """
    means, within, found = np.asarray(y, float), 0.0, []
    below = 1
    while means.ndim:
        outer = means.mean(axis=-1)
        freedom = outer.size * (means.shape[-1] - 1)
        square = below * float(((means - outer[..., None]) ** 2).sum()) / freedom
        found.append(max(0.0, (square - within) / below))
        means, within, below = outer, square, below * means.shape[-1]
    return found[::-1]


def improvement(x: ArrayLike) -> float:
    """Share of seeds that improved, ties half: the paired probability of improvement."""
    values = np.asarray(x, float)
    return float(np.mean((values > 0) + 0.5 * (values == 0)))


def correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's r of paired seeds ``x [n]``, ``y [n]``, over those where both are finite; NaN below three or without spread."""
    pairs = np.column_stack([np.asarray(x, float), np.asarray(y, float)])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return math.nan
    return float(np.corrcoef(pairs.T)[0, 1])


def ratio_of_means(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Interval:
    """mean(x) / mean(y) of paired seeds ``[n]`` with Fieller's interval (1954).

    It holds all r for which the t test does not reject mean(x - r y) = 0. Nothing (NaN) where y's own interval holds zero, since
    the ratio's is then unbounded. Seeds with a gap are left out.
    """
    pairs = np.column_stack([np.asarray(x, float), np.asarray(y, float)])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    n = len(pairs)
    if n < 2:
        return Interval(math.nan, math.nan, math.nan, n)
    from scipy.special import stdtrit

    (mx, my), covariance = pairs.mean(axis=0), np.cov(pairs.T)
    scale = float(stdtrit(n - 1, (1 + level) / 2)) ** 2 / n
    a, b, c = my**2 - scale * covariance[1, 1], mx * my - scale * covariance[0, 1], mx**2 - scale * covariance[0, 0]
    if a <= 0:
        return Interval(math.nan, math.nan, math.nan, n)
    half = math.sqrt(max(0.0, b * b - a * c))
    return Interval(float(mx / my), float((b - half) / a), float((b + half) / a), n)
