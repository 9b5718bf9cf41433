"""How many seeds, and how often one may look: power, the seeds that decide, alpha spent over looks. A leaf on scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

NO_ALPHA = 1e-50
"""An alpha that no data meet, as an early look among many may have: spending starts at next to nothing."""


def power(effect: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Power of the two-sided paired t test for a mean difference ``effect`` with spread ``sd`` at n seeds.

    The noncentral t distribution as a mean over the chi-distributed spread: scipy's own has holes at large shifts.
    """
    if n < 2 or sd <= 0:
        return math.nan
    if alpha < NO_ALPHA:
        return 0.0
    from scipy.integrate import quad
    from scipy.special import chdtri, ndtr, stdtrit

    df, shift = n - 1, abs(effect) / sd * math.sqrt(n)
    critical = -float(stdtrit(df, alpha / 2))  # by the lower tail: 1 - alpha / 2 is 1 for the alpha of an early look

    def rejected(u: float) -> float:
        bar = critical * math.sqrt(chdtri(df, 1 - u) / df)
        return float(ndtr(shift - bar) + ndtr(-shift - bar))

    return float(quad(rejected, 0, 1, limit=200)[0])


def detectable(sd: float, n: int, alpha: float = 0.05, wanted: float = 0.8) -> float:
    """The smallest mean difference that n seeds detect with the ``wanted`` power; NaN below two seeds and `NO_ALPHA`."""
    if n < 2 or sd <= 0 or alpha < NO_ALPHA:
        return math.nan
    from scipy.optimize import brentq

    top = sd
    while power(top, sd, n, alpha) < wanted:
        top *= 2
    return float(brentq(lambda effect: power(effect, sd, n, alpha) - wanted, 0.0, top))


def seeds_to_decide(sd: float, margin: float, alpha: float = 0.05, most: int = 1000) -> int | None:
    """The fewest seeds that decide whatever the truth is, for differences with spread ``sd``; None beyond ``most``.

    That is when the half-width of the mean's 1 - alpha interval is at most half the margin: a difference that the t test at
    alpha does not find is then within the margin by TOST at alpha.
    """
    if alpha < NO_ALPHA:
        return None
    from scipy.special import stdtrit

    n = np.arange(2, most + 1)
    enough = -stdtrit(n - 1, alpha / 2) * sd / np.sqrt(n) <= margin / 2
    return int(n[enough.argmax()]) if enough.any() else None


def spread_bound(x: ArrayLike, level: float = 0.8) -> float:
    """Upper one-sided bound of the standard deviation behind ``x [n]`` (chi-square), for planning with few seeds."""
    from scipy.stats import chi2

    values = np.asarray(x, float)
    if len(values) < 2:
        return math.nan
    df = len(values) - 1
    return float(values.std(ddof=1) * math.sqrt(df / chi2.ppf(1 - level, df)))


def alpha_at(n: int, looks: Sequence[int]) -> float:
    """Alpha of the look at ``n`` seeds among the declared ``looks``, rising; nan where none was declared there."""
    return spent_alpha(list(looks))[list(looks).index(n)] if n in looks else math.nan


def spent_alpha(looks: list[int], alpha: float = 0.05) -> list[float]:
    """Alpha that each look at ``looks[i]`` seeds in all may use, the last being the planned end.

    Lan and DeMets' spending function of the O'Brien-Fleming kind, spent by union bound: conservative, and valid whatever the
    correlation of the looks.
    """
    from scipy.special import ndtr, ndtri

    if not looks or any(b <= a for a, b in zip([0, *looks], looks, strict=False)):
        raise ValueError(f"looks must be rising counts of seeds, got {looks}")
    total = [2 * float(ndtr(ndtri(alpha / 2) / math.sqrt(n / looks[-1]))) for n in looks]
    return [b - a for a, b in zip([0.0, *total], total, strict=False)]
