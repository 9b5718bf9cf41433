"""Over-optimisation in numbers: Gao et al.'s form of gold against d = sqrt(KL), fitted to each seed's checkpoints.

Gao, Schulman, Hilton 2022 (arXiv 2210.10760), RL: gain(d) = d (a - b log d). It is linear in a and b, so the fit is least
squares; where b > 0 it turns over at d* = exp(a / b - 1). Fitted to the gain of the `val` judge's log-probability of the
target. The form is a description: where d* lies outside the range measured, it is not extrapolated.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ablations.inference import wilson
from ablations.records import Record
from ablations.sheet import Column, Sheet, Value
from ablations.statistics import t_interval
from reports.store import Selection

MEASURE = "val_logprob"


class Fit(NamedTuple):
    """One seed's fit."""

    a: float
    b: float
    residual: float
    """Root mean square of the residuals, nats."""
    peak: float
    """d* in range, else NaN."""


def fit(d: ArrayLike, gain: ArrayLike) -> Fit | None:
    """Least squares of ``gain [S] = d (a - b log d)`` at ``d [S]`` > 0; None below three such points."""
    x, y = np.asarray(d, float), np.asarray(gain, float)
    x, y = x[x > 0], y[x > 0]
    if len(x) < 3:
        return None
    design = np.column_stack([x, -x * np.log(x)])
    (a, b), *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = float(np.sqrt(np.mean((design @ [a, b] - y) ** 2)))
    peak = math.exp(min(a / b - 1, 700)) if b > 0 else math.nan
    return Fit(float(a), float(b), residual, peak if x.min() <= peak <= x.max() else math.nan)


def sheet(selection: Selection) -> Sheet | None:
    """Fits by arm, beside the gold peak, what was lost after it, and how many seeds diverged; None where no arm moved."""
    rows: list[tuple[Value, ...]] = []
    for arm in selection.arms:
        own = [r for r in selection.of(arm) if {"sqrt_kl", MEASURE, "test_accuracy"} <= set(r.points.columns)]
        found = [f for f in (_fit(record) for record in own) if f is not None]
        diverged = sum(label == arm for label, _ in selection.diverged)
        if not diverged and not any(len(record.points) > 1 for record in own):
            continue
        turned = [f.peak for f in found if math.isfinite(f.peak)]
        gold = [r.points["test_accuracy"] for r in own]
        rows.append(
            (
                arm,
                float(len(own)),
                t_interval([f.a for f in found]),
                t_interval([f.b for f in found]),
                float(np.mean([f.residual for f in found])) if found else math.nan,
                _turns(len(turned), len(found)),
                t_interval(turned),
                t_interval([float(y.max()) for y in gold]),
                t_interval([float(y.max() - y.iloc[-1]) for y in gold]),
                wilson(diverged, diverged + len(selection.of(arm))),
            )
        )
    columns = (
        Column("arm", "arm"),
        Column("n", "n", "count"),
        Column("a", "a", "plain"),
        Column("b", "b", "plain"),
        Column("residual", "residual (RMS), nats", "plain"),
        Column("turned", "seeds that turn in range"),
        Column("d_peak", "d at the turn", "mark"),
        Column("peak_test_accuracy", "gold peak, %", "percent"),
        Column("lost", "lost after the peak, points", "gain"),
        Column("diverged", "diverged, %", "share"),
    )
    notes = (
        "Gain of the `val` judge's log-probability fitted by d (a - b log d), d = sqrt(KL per token) (Gao et al. "
        "2022), each seed by itself; "
        "mean over seeds ± half the 95 % t-interval. Gold peak and loss are by the `test` judge; the largest of a "
        "few noisy checkpoints is biased "
        "upwards, and the loss with it. Diverged: seeds whose optimisation left the finite numbers, of those that ended, with "
        "Wilson's 95 % interval. Descriptive.",
    )
    return Sheet("overoptimisation", "Over-optimisation", columns, tuple(rows), notes) if rows else None


def _turns(turned: int, fitted: int) -> str:
    if not fitted:
        return "too few checkpoints to fit"
    return f"{turned} of {fitted}" if turned else "no turning point in range"


def _fit(record: Record) -> Fit | None:
    points = record.points
    gain = points[MEASURE].to_numpy(float)
    return fit(points["sqrt_kl"].to_numpy(float), gain - gain[0])
