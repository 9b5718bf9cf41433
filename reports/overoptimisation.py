"""Table of over-optimisation: peak gold accuracy, the loss after it, and how many runs collapsed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ablations.judges import gold
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.stats.family import COLLAPSED, DIVERGED, primary
from ablations.stats.inference import wilson
from ablations.stats.statistics import Interval, t_interval
from ablations.tracking.records import Record
from reports.loading import Selection


def gamma(kl: ArrayLike, gold_accuracy: ArrayLike, proxy: ArrayLike) -> float:
    """gamma = integral |gold - proxy| / integral gold over KL (arXiv 2505.12763), by trapezoids between checkpoints ``[S]``.

    A step back in KL adds nothing. NaN where KL never left 0. Checkpoints at which gold was not asked are left out.
    """
    path = np.column_stack([np.asarray(values, float) for values in (kl, gold_accuracy, proxy)])
    d, g, p = path[np.isfinite(path).all(axis=1)].T
    furthest = np.maximum.accumulate(d) if len(d) else d
    area = float(np.trapezoid(g, furthest))
    return float(np.trapezoid(np.abs(g - p), furthest)) / area if area > 0 else math.nan


def collapses(selection: Selection, arm: str) -> tuple[Interval, float, float]:
    """Share of an arm's seeds that collapsed, with Wilson's interval, and its worst seed: primary outcome and seed.

    A cell collapsed where its primary outcome is below `COLLAPSED` of the SFT policy's, at its own first checkpoint; a diverged
    one always. n counts the cells of which that is known.
    """
    outcome = primary()
    values = {seed: DIVERGED for label, seed in selection.diverged if label == arm}
    broken = len(values)
    for record in selection.of(arm):
        start, end = _start(record), outcome.read(record)
        if math.isfinite(start) and math.isfinite(end):
            values[record.seed] = end
            broken += end < COLLAPSED * start
    worst = min(values, key=lambda seed: (values[seed], seed), default=None)
    return wilson(broken, len(values)), *((math.nan, math.nan) if worst is None else (values[worst], float(worst)))


def _start(record: Record) -> float:
    """The primary outcome of the SFT policy: at a cell's first checkpoint."""
    curve = primary().curve
    found = curve(record) if curve else np.empty(0)
    return float(found[0]) if len(found) else math.nan


def sheet(selection: Selection) -> Sheet | None:
    """One row an arm that is optimised or diverged; None without any."""
    judge = gold()
    rows: list[tuple[Value, ...]] = []
    for arm in selection.arms:
        heard = [record for record in selection.of(arm) if judge.accuracy in record.points.columns]
        diverged = sum(label == arm for label, _ in selection.diverged)
        if not (diverged or any(len(record.points) > 1 for record in heard)):
            continue
        curves = [record.points[judge.accuracy] for record in heard]
        peak = t_interval([float(y.max()) for y in curves])
        lost = t_interval([float(y.max() - y.iloc[-1]) for y in curves])
        apart = t_interval([_gamma(record) for record in heard])
        ended = wilson(diverged, diverged + len(selection.of(arm)))
        rows.append((arm, float(len(heard)), peak, lost, apart, ended, *collapses(selection, arm)))
    columns = (
        Column("arm", "arm"),
        Column("n", "n", "count"),
        Column("peak", "gold peak, %", "percent"),
        Column("lost", "lost after the peak, points", "gain"),
        Column("gamma", "gamma", "plain"),
        Column("diverged", "diverged, %", "share"),
        Column("collapsed", "collapsed, %", "share"),
        Column("worst", f"worst seed's {primary().heading}", "percent"),
        Column("worst_seed", "worst seed", "count"),
    )
    notes = (
        f"By the {judge.label}, mean over seeds ± half the 95 % t-interval; the largest of a few noisy checkpoints is biased "
        "upwards, and the loss with it. gamma: integral of |gold - proxy| over that of gold, along KL (arXiv 2505.12763); an arm "
        "that went further has more of it. Diverged: seeds whose optimisation left the finite numbers, of those that ended. "
        f"Collapsed: {primary().label} below {COLLAPSED:.2g} of the SFT policy's of the seed, diverged seeds among them. "
        "Wilson's 95 % intervals: they alone speak of collapses that these seeds did not show. Descriptive.",
    )
    return Sheet("overoptimisation", "Over-optimisation", columns, tuple(rows), notes) if rows else None


def _gamma(record: Record) -> float:
    wanted = ["kl_token", gold().accuracy, "proxy_accuracy"]
    points = record.points
    return gamma(*(points[name] for name in wanted)) if set(wanted) <= set(points.columns) else math.nan
