"""Table of early stopping, without new runs: every arm at the checkpoint that the tuning judge would have selected.

This is the alternative to RRPO's components: monitor a held-out judge and keep the best checkpoint.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ablations.judges import tuning
from ablations.outcomes import shown as declared
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import FRAMES
from ablations.stats.statistics import t_interval
from ablations.tracking.records import Record
from reports.loading import Selection


def best(accuracy: ArrayLike) -> int | None:
    """Return the index of the highest value in ``accuracy [S]``, the first one if there are ties; None if no value is
    finite."""
    values = np.asarray(accuracy, float)
    return int(np.nanargmax(values)) if np.isfinite(values).any() else None


def sheet(selection: Selection) -> Sheet | None:
    """Return a table with one row per trained arm, at its selected checkpoint; None if no arm is trained."""
    outcomes = [outcome for outcome in declared(selection.records) if outcome.curve]
    rows: list[tuple[Value, ...]] = []
    for arm in selection.arms:
        selected = {record.seed: (record, i) for record in selection.of(arm) if (i := _selected(record)) is not None}
        if selected:
            steps = [float(record.points["step"].iloc[i]) for record, i in selected.values()]
            values = [[outcome.curve(r)[i] for r, i in selected.values()] for outcome in outcomes if outcome.curve]
            rows.append((arm, float(len(selected)), t_interval(steps), *map(t_interval, values)))
    columns = (
        Column("arm", "arm"),
        Column("n", "n", "count"),
        Column("step", "selected update", "mark"),
        *(outcome.as_column() for outcome in outcomes),
    )
    notes = (
        f"Every arm at the checkpoint with the highest accuracy by the {tuning().label}, from the same runs. Mean "
        "over seeds ± half the 95 % t-interval. Checkpoints before the last are evaluated on fewer prompts, and the "
        "accuracy by the selecting judge is biased upwards at the best of several noisy checkpoints. Secondary, not "
        "tested.",
    )
    return Sheet("early_stopped", "Early stopping", columns, tuple(rows), notes, FRAMES) if rows else None


def _selected(record: Record) -> int | None:
    points = record.points
    return best(points[tuning().accuracy]) if len(points) > 1 and tuning().accuracy in points.columns else None
