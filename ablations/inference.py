"""Tests, intervals and effect sizes on paired seed differences: pure functions on arrays, a leaf on scipy's distributions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ablations.statistics import Interval, t_interval

EXACT = 20
"""Most seeds for which every sign pattern is counted (2^20); more are refused, since the table would not fit."""
FAR = 25.0
"""Largest |t| that is given to the noncentral t distribution."""


class PairedTest(NamedTuple):
    """Three tests of 'the mean difference is zero' on the same seeds, two-sided."""

    mean: Interval
    """Mean difference with its t-interval."""
    t_p: float
    """Paired t test: the declared one."""
    sign_flip_p: float
    """Exact permutation test under sign flips of the mean."""
    sign_flip_floor: float
    """The smallest p that n seeds can give it, 2 / 2^n."""
    wilcoxon_p: float
    """Exact signed-rank test, zeros dropped."""


class Effect(NamedTuple):
    """Standardised paired effect."""

    g_z: float
    """Mean over standard deviation of the differences (d_z), with Hedges' correction."""
    low: float
    high: float
    """95 % interval through the noncentral t distribution, with the same correction."""


def differences(treated: ArrayLike, control: ArrayLike) -> NDArray[np.float64]:
    """``treated - control`` seed by seed ``[n]``, of the seeds where both are finite.

    Raises:
        ValueError: Arrays of different shapes: pairs are by position.
    """
    a, b = np.asarray(treated, float), np.asarray(control, float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"paired values need the same seeds in the same order, got shapes {a.shape} and {b.shape}")
    both: NDArray[np.float64] = (a - b)[np.isfinite(a) & np.isfinite(b)]
    return both


def paired_test(x: ArrayLike, level: float = 0.95) -> PairedTest:
    """All three tests on differences ``[n]``; p values are NaN below two seeds or without spread (t)."""
    values = np.asarray(x, float)
    n = len(values)
    mean = t_interval(values, level)
    if n < 2:
        return PairedTest(mean, math.nan, math.nan, math.nan, math.nan)
    from scipy.stats import ttest_1samp, wilcoxon

    spread = values.std(ddof=1)
    t_p = float(ttest_1samp(values, 0.0).pvalue) if spread > 0 else math.nan
    nonzero = values[values != 0]
    signed = float(wilcoxon(nonzero, method="exact").pvalue) if len(nonzero) else 1.0
    return PairedTest(mean, t_p, sign_flip(values), 2.0 / 2**n, signed)


def sign_flip(x: ArrayLike) -> float:
    """Two-sided p of |mean| among all 2^n sign patterns of ``x [n]`` (Fisher's exact permutation of paired data)."""
    values = np.asarray(x, float)
    if len(values) > EXACT:
        raise ValueError(
            f"sign_flip counts all patterns of at most {EXACT} seeds, got {len(values)}; use paired_test's t"
        )
    signs = np.array(list(product((1.0, -1.0), repeat=len(values))))
    sums = np.abs(signs @ values)
    return float(np.mean(sums >= sums[0] - 1e-12 * max(1.0, float(sums[0]))))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjusted p by name; NaN stays NaN but counts in the family, which was declared beforehand."""
    order = sorted(p, key=lambda name: (math.isnan(p[name]), p[name]))
    adjusted: dict[str, float] = {}
    running = 0.0
    for rank, name in enumerate(order):
        if math.isnan(p[name]):
            adjusted[name] = math.nan
            continue
        running = max(running, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = running
    return {name: adjusted[name] for name in p}


def effect_size(x: ArrayLike, level: float = 0.95) -> Effect:
    """Hedges-corrected d_z of differences ``[n]`` and its interval by inverting the noncentral t (Cumming 2012).

    Beyond |t| of `FAR`, where scipy's noncentral t breaks down, the interval is the usual normal approximation.
    """
    values = np.asarray(x, float)
    n = len(values)
    if n < 2 or values.std(ddof=1) == 0:
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


def equivalence(x: ArrayLike, margin: float) -> float:
    """TOST: p of 'the mean difference lies outside +-margin' (Schuirmann 1987), the larger of two one-sided t tests."""
    values = np.asarray(x, float)
    if margin <= 0:
        raise ValueError(f"the equivalence margin must be positive, got {margin}")
    if len(values) < 2 or values.std(ddof=1) == 0:
        return math.nan
    from scipy.stats import ttest_1samp

    above = ttest_1samp(values, -margin, alternative="greater").pvalue
    below = ttest_1samp(values, margin, alternative="less").pvalue
    return float(max(above, below))


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion, as for 'seeds that hacked'."""
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    from scipy.special import ndtri

    z, share = float(ndtri((1 + level) / 2)), successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), n)


def iqm(x: ArrayLike) -> float:
    """Interquartile mean (Agarwal et al. 2021): the mean without the lowest and the highest quarter. Descriptive."""
    from scipy.stats import trim_mean

    values = np.asarray(x, float)
    return float(trim_mean(values[np.isfinite(values)], 0.25))


def improvement(x: ArrayLike) -> float:
    """Share of seeds that improved, ties half: the paired probability of improvement."""
    values = np.asarray(x, float)
    return float(np.mean((values > 0) + 0.5 * (values == 0)))


def power(effect: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Power of the two-sided paired t test for a mean difference ``effect`` with spread ``sd`` at n seeds.

    The noncentral t distribution as a mean over the chi-distributed spread: scipy's own has holes at large shifts.
    """
    if n < 2 or sd <= 0:
        return math.nan
    from scipy.integrate import quad
    from scipy.special import chdtri, ndtr, stdtrit

    df, shift = n - 1, abs(effect) / sd * math.sqrt(n)
    critical = float(stdtrit(df, 1 - alpha / 2))

    def rejected(u: float) -> float:
        bar = critical * math.sqrt(chdtri(df, 1 - u) / df)
        return float(ndtr(shift - bar) + ndtr(-shift - bar))

    return float(quad(rejected, 0, 1, limit=200)[0])


def detectable(sd: float, n: int, alpha: float = 0.05, wanted: float = 0.8) -> float:
    """The smallest mean difference that n seeds detect with the ``wanted`` power; NaN below two seeds."""
    if n < 2 or sd <= 0:
        return math.nan
    from scipy.optimize import brentq

    top = sd
    while power(top, sd, n, alpha) < wanted:
        top *= 2
    return float(brentq(lambda effect: power(effect, sd, n, alpha) - wanted, 0.0, top))


def seeds_needed(effect: float, sd: float, alpha: float = 0.05, wanted: float = 0.8, most: int = 1000) -> int | None:
    """The fewest seeds with the ``wanted`` power, None when ``most`` do not suffice."""
    return next((n for n in range(2, most + 1) if power(effect, sd, n, alpha) >= wanted), None) if effect else None


def spread_bound(x: ArrayLike, level: float = 0.8) -> float:
    """Upper one-sided bound of the standard deviation behind ``x [n]`` (chi-square), for planning with few seeds."""
    from scipy.stats import chi2

    values = np.asarray(x, float)
    if len(values) < 2:
        return math.nan
    df = len(values) - 1
    return float(values.std(ddof=1) * math.sqrt(df / chi2.ppf(1 - level, df)))


def spent_alpha(looks: list[int], alpha: float = 0.05) -> list[float]:
    """Alpha that each look at ``looks[i]`` seeds in all may use, the last being the planned end.

    Lan and DeMets' spending function of the O'Brien-Fleming kind, spent by union bound: conservative, and valid whatever the
    correlation of the looks.
    """
    from scipy.special import ndtr, ndtri

    if not looks or any(b <= a for a, b in zip([0, *looks], looks, strict=False)):
        raise ValueError(f"looks must be rising counts of seeds, got {looks}")
    total = [2 * (1 - float(ndtr(ndtri(1 - alpha / 2) / math.sqrt(n / looks[-1])))) for n in looks]
    return [b - a for a, b in zip([0.0, *total], total, strict=False)]
