"""Table of over-optimization: peak gold accuracy, the loss after the peak, `OVEROPTIMISATION`, and the share of collapsed
runs."""

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
    """Return the share of an arm's seeds that collapsed (Wilson's interval), and the primary outcome and seed of its worst
    cell.

    A cell collapsed if its primary outcome is below `COLLAPSED` times that of the SFT policy, read at the cell's first
    checkpoint. A diverged cell always counts as collapsed. n is the number of cells for which this is known.
    """
    outcome = primary()
    values = {seed: DIVERGED for label, seed in selection.diverged if label == arm}
    collapsed = len(values)
    for record in selection.of(arm):
        start, end = _sft_outcome(record), outcome.read(record)
        if math.isfinite(start) and math.isfinite(end):
            values[record.seed] = end
            collapsed += end < COLLAPSED * start
    worst = min(values, key=lambda seed: (values[seed], seed), default=None)
    return wilson(collapsed, len(values)), *((math.nan, math.nan) if worst is None else (values[worst], float(worst)))


def _sft_outcome(record: Record) -> float:
    """Return the primary outcome of the SFT policy, read at the cell's first checkpoint."""
    curve = primary().curve
    values = curve(record) if curve else np.empty(0)
    return float(values[0]) if len(values) else math.nan


def sheet(selection: Selection) -> Sheet | None:
    """Return a table with one row per arm that was optimized or diverged; None if there are none."""
    judge = gold()
    rows: list[tuple[Value, ...]] = []
    for arm in selection.arms:
        evaluated = [record for record in selection.of(arm) if judge.accuracy in record.points.columns]
        diverged = sum(label == arm for label, _ in selection.diverged)
        if not (diverged or any(len(record.points) > 1 for record in evaluated)):
            continue
        curves = [record.points[judge.accuracy] for record in evaluated]
        peak = t_interval([float(y.max()) for y in curves])
        loss = t_interval([float(y.max() - y.iloc[-1]) for y in curves])
        means = [t_interval([outcome.read(record) for record in evaluated]) for outcome in OVEROPTIMISATION]
        diverged_share = wilson(diverged, diverged + len(selection.of(arm)))
        rows.append((arm, float(len(evaluated)), peak, loss, *means, diverged_share, *collapses(selection, arm)))
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
        f"Gold peak: highest accuracy by the {judge.label}; mean over seeds ± half the 95 % t-interval. The maximum "
        "over a few noisy checkpoints is biased upwards, and so is the loss after it.",
        *(outcome.note for outcome in OVEROPTIMISATION),
        "Diverged: share of finished seeds whose optimization ended with non-finite values. Collapsed: share of "
        f"seeds with {primary().label} below {COLLAPSED:.2g} times the SFT policy's, diverged seeds included. Both "
        "with Wilson's 95 % interval, which also covers collapses that did not occur in these seeds. Descriptive.",
    )
    return Sheet("overoptimisation", "Over-optimization", columns, tuple(rows), notes) if rows else None
