"""Power of the paired t test, detectable difference for a number of seeds, and number of seeds for a difference."""

from __future__ import annotations

import math

MOST = 1000
"""Largest number of seeds that is considered."""


def power(effect: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Return the power of the two-sided paired t test for a mean difference ``effect`` with standard deviation ``sd`` at n seeds.

    NaN below two seeds or for ``sd`` <= 0. The noncentral t probability is computed by integrating over the chi-distributed
    sample standard deviation, because scipy's own function fails at some large shifts.
    """
    if n < 2 or sd <= 0:
        return math.nan
    from scipy.integrate import quad
    from scipy.special import chdtri, ndtr, stdtrit

    df, shift = n - 1, abs(effect) / sd * math.sqrt(n)
    critical = float(stdtrit(df, 1 - alpha / 2))

    def rejected(u: float) -> float:
        threshold = critical * math.sqrt(chdtri(df, 1 - u) / df)
        return float(ndtr(shift - threshold) + ndtr(-shift - threshold))

    return float(quad(rejected, 0, 1, limit=200)[0])


def detectable(sd: float, n: int, alpha: float = 0.05, target: float = 0.8) -> float:
    """Return the smallest mean difference that n seeds detect with power ``target``; NaN below two seeds or for ``sd`` <= 0."""
    if n < 2 or sd <= 0:
        return math.nan
    from scipy.optimize import brentq

    top = sd
    while power(top, sd, n, alpha) < target:
        top *= 2
    return float(brentq(lambda effect: power(effect, sd, n, alpha) - target, 0.0, top))


def seeds_needed(effect: float, sd: float, alpha: float = 0.05, target: float = 0.8) -> int | None:
    """Return the fewest seeds that detect a mean difference ``effect`` with power ``target``; None if above `MOST`."""
    low, high = 1, MOST
    if not power(effect, sd, high, alpha) >= target:
        return None
    while high - low > 1:  # bisection: power increases with the number of seeds
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, sd, middle, alpha) >= target else (middle, high)
    return high


def spread_bound(sd: float, n: int, level: float = 0.8) -> float:
    """Return the one-sided upper confidence bound of a standard deviation estimated as ``sd`` on n seeds (chi-square).

    NaN below two seeds.
    """
    if n < 2:
        return math.nan
    from scipy.special import chdtri

    return sd * math.sqrt((n - 1) / float(chdtri(n - 1, level)))
