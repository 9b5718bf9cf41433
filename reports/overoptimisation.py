"""The table of over-optimization: what is lost after the peak, and how often policies diverge or collapse."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from ablations.judges import gold
from ablations.outcomes import OVEROPTIMISATION, Outcome, ends
from ablations.rendering.sheet import Column, Sheet
from ablations.rendering.summary import by_arm
from ablations.stats.family import COLLAPSED, DIVERGED, primary
from ablations.stats.inference import wilson
from ablations.stats.statistics import Interval
from ablations.tracking.records import Record
from reports.loading import Selection


def collapses(selection: Selection, arm: str) -> tuple[Interval, float, float]:
    """Return the share of an arm's seeds that collapsed (Wilson's interval), and the primary outcome and seed of its worst
    cell.

    A cell collapsed if its primary outcome is below `COLLAPSED` times that of the SFT policy, which is the cell's first
    checkpoint; both on the same prompts. A diverged cell always counts as collapsed. n is the number of cells for which this is
    known.
    """
    outcome = primary()
    values = {seed: DIVERGED for label, seed in selection.diverged if label == arm}
    collapsed = len(values)
    for record in selection.of(arm):
        start, end = ends(outcome, record)
        if math.isfinite(start) and math.isfinite(end):
            values[record.seed] = outcome.read(record)
            collapsed += end < COLLAPSED * start
    worst = min(values, key=lambda seed: (values[seed], seed), default=None)
    return wilson(collapsed, len(values)), *((math.nan, math.nan) if worst is None else (values[worst], float(worst)))


def at_peak() -> list[Outcome]:
    """Return the highest gold accuracy over a run's checkpoints, and the loss from there to the last one."""

    def peak(record: Record) -> float:
        return float(record.trajectory[gold().accuracy].max())

    def lost(record: Record) -> float:
        return peak(record) - float(record.trajectory[gold().accuracy].iloc[-1])

    return [
        Outcome(name="peak", label="gold peak", read=peak),
        Outcome(name="lost", label="lost after the peak", read=lost, unit="gain"),
    ]


def sheet(selection: Selection) -> Sheet | None:
    """Return a table with one row per arm that was optimized or diverged; None if there are none."""
    records = [record for record in selection.records if gold().accuracy in record.points.columns]
    diverged = Counter(arm for arm, _ in selection.diverged)
    moved = {record.label for record in records if len(record.points) > 1}
    arms = [arm for arm in selection.arms if arm in moved | diverged.keys()]
    notes = (
        f"Gold peak: highest accuracy by the {gold().label}; mean over seeds ± half the 95 % t-interval. The maximum "
        "over a few noisy checkpoints is biased upwards, and so is the loss after it.",
        *(outcome.note for outcome in OVEROPTIMISATION),
        "Diverged: share of finished seeds whose optimization ended with non-finite values. Collapsed: share of "
        f"seeds with {primary().label} below {COLLAPSED:.2g} times the SFT policy's, diverged seeds included. Both "
        "with Wilson's 95 % interval, which also covers collapses that did not occur in these seeds. Descriptive.",
    )
    shown = [record for record in records if record.label in arms]
    table = by_arm("overoptimisation", "Over-optimization", shown, [*at_peak(), *OVEROPTIMISATION], *notes, arms=arms)
    columns = (
        Column("diverged", "diverged, %", "share"),
        Column("collapsed", "collapsed, %", "share"),
        Column("worst", f"worst seed's {primary().heading}", "percent"),
        Column("worst_seed", "worst seed", "count"),
    )
    rows = [
        (*row, wilson(diverged[arm], diverged[arm] + len(selection.of(arm))), *collapses(selection, arm))
        for arm, row in zip(arms, table.rows, strict=True)
    ]
    return replace(table, columns=(*table.columns, *columns), rows=tuple(rows)) if rows else None
