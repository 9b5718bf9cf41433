"""Table of over-optimisation: peak gold accuracy, the loss after it, `OVEROPTIMISATION`, and how many runs collapsed."""

from __future__ import annotations

import math

import numpy as np

from ablations.judges import gold
from ablations.outcomes import OVEROPTIMISATION
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.stats.family import COLLAPSED, DIVERGED, primary
from ablations.stats.inference import wilson
from ablations.stats.statistics import Interval, t_interval
from ablations.tracking.records import Record
from reports.loading import Selection


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
        others = [t_interval([outcome.read(record) for record in heard]) for outcome in OVEROPTIMISATION]
        ended = wilson(diverged, diverged + len(selection.of(arm)))
        rows.append((arm, float(len(heard)), peak, lost, *others, ended, *collapses(selection, arm)))
    columns = (
        Column("arm", "arm"),
        Column("n", "n", "count"),
        Column("peak", "gold peak, %", "percent"),
        Column("lost", "lost after the peak, points", "gain"),
        *(outcome.as_column() for outcome in OVEROPTIMISATION),
        Column("diverged", "diverged, %", "share"),
        Column("collapsed", "collapsed, %", "share"),
        Column("worst", f"worst seed's {primary().heading}", "percent"),
        Column("worst_seed", "worst seed", "count"),
    )
    notes = (
        f"By the {judge.label}, mean over seeds ± half the 95 % t-interval; the largest of a few noisy checkpoints is biased "
        "upwards, and the loss with it.",
        *(outcome.note for outcome in OVEROPTIMISATION),
        "Diverged: seeds whose optimisation left the finite numbers, of those that ended. "
        f"Collapsed: {primary().label} below {COLLAPSED:.2g} of the SFT policy's of the seed, diverged seeds among them. "
        "Wilson's 95 % intervals: they alone speak of collapses that these seeds did not show. Descriptive.",
    )
    return Sheet("overoptimisation", "Over-optimisation", columns, tuple(rows), notes) if rows else None
