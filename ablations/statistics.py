"""Statistics of seeds: pure functions on arrays, a leaf. The unit of analysis is the seed, never the utterance."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

STUCK = 0.1
"""An arm whose reach is under this share of the seed's median reach did not move: it does not set the common range."""


class Interval(NamedTuple):
    """A mean over seeds with its 95 % interval; the bounds are NaN below two seeds."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student's t-interval of the mean: mean -+ t_{n-1} s / sqrt(n). Values that are not finite are left out."""
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


@dataclass(frozen=True)
class MatchedGain:
    """Gold gain at matched KL of every arm of one seed."""

    gains: dict[str, float]
    """Mean accuracy gain over the start, by arm; NaN for all arms where no arm moved."""
    reach: float
    """The end of the common range, in sqrt(KL per token)."""
    stuck: tuple[str, ...]
    """Arms that should have moved and did not; they do not set the range."""


def matched_kl_gain(paths: Mapping[str, tuple[ArrayLike, ArrayLike]], stops: Collection[str] = ()) -> MatchedGain:
    """The primary outcome for one seed: mean accuracy gain over the start along d = sqrt(KL per token).

    ``paths`` maps an arm to its checkpoints ``(d, accuracy)`` in order of training, the first at d = 0 (the SFT
    policy). An arm is linear between checkpoints. KL need not rise all the time, so the accuracy *at* d is that of the
    first time the arm reaches d; what it does while it moves back below its furthest d is not counted. The gain is the
    mean of ``accuracy(d) - accuracy(start)`` over d from 0 to the *common range*, by exact integration.

    The common range ends at the smallest reach (largest d) of the arms. Not asked are the arms in ``stops``, whose
    config ends their training early (SFT, early stopping), and *stuck* ones, under `STUCK` x the median reach; those
    that fall short of the range keep their last accuracy from there on: a policy that has stopped costs no more KL. So
    SFT gains 0.
    """
    arrays = {arm: (np.asarray(d, float), np.asarray(accuracy, float)) for arm, (d, accuracy) in paths.items()}
    moving = {arm: float(np.max(d)) for arm, (d, _) in arrays.items() if arm not in stops}
    threshold = STUCK * float(np.median(list(moving.values()))) if moving else 0.0
    stuck = tuple(arm for arm, reach in moving.items() if reach <= threshold)
    common = min((reach for arm, reach in moving.items() if arm not in stuck), default=0.0)
    if common <= 0:
        return MatchedGain(dict.fromkeys(arrays, float("nan")), 0.0, stuck)
    return MatchedGain({arm: _mean_gain(d, y, common) for arm, (d, y) in arrays.items()}, common, stuck)


def _mean_gain(d: NDArray[np.float64], accuracy: NDArray[np.float64], end: float) -> float:
    """Mean over [0, end] of accuracy at first passage, less the start's."""
    furthest, gain, area = 0.0, accuracy - accuracy[0], 0.0
    for i in range(len(d) - 1):
        start, stop = max(furthest, d[i]), min(d[i + 1], end)
        if stop <= start:  # moves back, or is still behind its furthest point, or past the range
            continue
        y_start, y_stop = np.interp([start, stop], d[i : i + 2], gain[i : i + 2])
        area += (stop - start) * (y_start + y_stop) / 2
        furthest = stop
    area += max(end - furthest, 0.0) * gain[-1]  # stopped short: keeps its last accuracy
    return float(area / end)


def at_passage(x: ArrayLike, y: ArrayLike, level: float) -> float:
    """``y [S]`` where ``x [S]`` first reaches ``level``, linear between checkpoints; NaN where it never does.

    Checkpoints at which ``y`` was not asked (NaN) are left out.
    """
    path, values = np.asarray(x, float), np.asarray(y, float)
    path, values = path[np.isfinite(values)], values[np.isfinite(values)]
    passed = np.flatnonzero(path >= level)
    if not len(passed):
        return float("nan")
    across = slice(max(passed[0] - 1, 0), passed[0] + 1)
    return float(np.interp(level, path[across], values[across]))


def mean_path(paths: Sequence[tuple[ArrayLike, ArrayLike]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean of several seeds' paths, checkpoint by checkpoint, over the checkpoints that all have."""
    shortest = min(len(np.asarray(d)) for d, _ in paths)
    stacked = np.array([[np.asarray(d, float)[:shortest], np.asarray(y, float)[:shortest]] for d, y in paths])
    mean = stacked.mean(axis=0)
    return mean[0], mean[1]
