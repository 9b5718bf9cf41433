"""Over-optimisation in numbers: the highest gold accuracy of a run, what was lost after it, and how many seeds diverged."""

from __future__ import annotations

from ablations.inference import wilson
from ablations.judges import gold
from ablations.sheet import Column, Sheet, Value
from ablations.statistics import t_interval
from reports.store import Selection


def sheet(selection: Selection) -> Sheet | None:
    """One row an arm that moved or diverged; None without any."""
    judge = gold()
    rows: list[tuple[Value, ...]] = []
    for arm in selection.arms:
        heard = [r.points[judge.accuracy] for r in selection.of(arm) if judge.accuracy in r.points.columns]
        diverged = sum(label == arm for label, _ in selection.diverged)
        if diverged or any(len(y) > 1 for y in heard):
            peak = t_interval([float(y.max()) for y in heard])
            lost = t_interval([float(y.max() - y.iloc[-1]) for y in heard])
            rows.append((arm, float(len(heard)), peak, lost, wilson(diverged, diverged + len(selection.of(arm)))))
    columns = (
        Column("arm", "arm"),
        Column("n", "n", "count"),
        Column("peak", "gold peak, %", "percent"),
        Column("lost", "lost after the peak, points", "gain"),
        Column("diverged", "diverged, %", "share"),
    )
    notes = (
        f"By the {judge.label}, mean over seeds ± half the 95 % t-interval; the largest of a few noisy checkpoints is biased "
        "upwards, and the loss with it. Diverged: seeds whose optimisation left the finite numbers, of those that ended, with "
        "Wilson's 95 % interval. Descriptive.",
    )
    return Sheet("overoptimisation", "Over-optimisation", columns, tuple(rows), notes) if rows else None
