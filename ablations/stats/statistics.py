"""Means and intervals over seeds, as pure functions on arrays. The unit of analysis is the seed, never the utterance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Interval(NamedTuple):
    """Mean over n seeds with its 95 % interval; the bounds are NaN below two seeds."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Return Student's t-interval of the mean, mean -+ t_{n-1} s / sqrt(n). Non-finite values are left out."""
    x = np.asarray(values, float).ravel()
    x = x[np.isfinite(x)]
    n = len(x)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    if n == 1:
        return Interval(float(x[0]), np.nan, np.nan, 1)
    from scipy.special import stdtrit

    mean = x.mean()
    half = stdtrit(n - 1, (1 + level) / 2) * x.std(ddof=1) / np.sqrt(n)
    return Interval(float(mean), float(mean - half), float(mean + half), n)


def listed(seeds: Sequence[int]) -> str:
    """Return ascending seeds as text: ``1 to 5``, a list if there are gaps or only two, or ``(none)``."""
    contiguous = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]} to {seeds[-1]}" if contiguous else ", ".join(map(str, seeds)) or "(none)"


def in_points(mean: Interval) -> str:
    """Format a mean of fractions in percentage points with its interval: ``+1.0 [-2.0, +4.0]``, or ``+1.0`` without one."""
    if np.isnan(mean.low):
        return f"{100 * mean.mean:+z.1f}"
    return f"{100 * mean.mean:+z.1f} [{100 * mean.low:+z.1f}, {100 * mean.high:+z.1f}]"


def at_passage(x: ArrayLike, y: ArrayLike, level: float) -> float:
    """Return ``y [S]`` at the point where ``x [S]`` first reaches ``level``, interpolated linearly between checkpoints.

    NaN if ``x`` never reaches it. Checkpoints at which ``y`` was not measured (NaN) are left out.
    """
    path, values = np.asarray(x, float), np.asarray(y, float)
    path, values = path[np.isfinite(values)], values[np.isfinite(values)]
    reached = np.flatnonzero(path >= level)
    if not len(reached):
        return float("nan")
    bracket = slice(max(reached[0] - 1, 0), reached[0] + 1)
    return float(np.interp(level, path[bracket], values[bracket]))


def mean_path(paths: Sequence[tuple[ArrayLike, ArrayLike]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean over seeds of paths ``(x [S], y [S])`` at each checkpoint that all seeds have."""
    shortest = min(len(np.asarray(x)) for x, _ in paths)
    stacked = np.array([[np.asarray(x, float)[:shortest], np.asarray(y, float)[:shortest]] for x, y in paths])
    mean = stacked.mean(axis=0)
    return mean[0], mean[1]
