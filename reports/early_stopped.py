"""Table of early stopping, without new runs: every arm at the checkpoint that the tuning judge would have selected.

This is the alternative to RRPO's components: monitor a held-out judge and keep the best checkpoint.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from ablations.judges import tuning
from ablations.outcomes import Outcome, followed, shown
from ablations.rendering.sheet import Sheet
from ablations.rendering.summary import by_arm
from ablations.tracking.records import Record
from reports.loading import Selection


def best(accuracy: ArrayLike) -> int | None:
    """Return the index of the highest value in ``accuracy [S]``, the first one if there are ties; None if no value is
    finite."""
    values = np.asarray(accuracy, float)
    return int(np.nanargmax(values)) if np.isfinite(values).any() else None


def sheet(selection: Selection) -> Sheet | None:
    """Return a table with one row per trained arm, at its selected checkpoint; None if no arm is trained."""
    outcomes = [followed("step", "selected update", "step", "mark"), *shown(selection.records)]
    records = [record for record in selection.records if _selected(record) is not None]
    note = (
        f"Every arm at the checkpoint with the highest accuracy by the {tuning().label}, from the same runs. Mean "
        "over seeds ± half the 95 % t-interval. Checkpoints before the last are evaluated on fewer prompts, and the "
        "accuracy by the selecting judge is biased upwards at the best of several noisy checkpoints. Secondary, not "
        "tested."
    )
    return by_arm("early_stopped", "Early stopping", records, map(_stopped, outcomes), note) if records else None


def _stopped(outcome: Outcome) -> Outcome:
    """Return the outcome at the selected checkpoint."""
    return replace(outcome, read=lambda record: float(outcome.curve(record)[_selected(record)]))


def _selected(record: Record) -> int | None:
    points = record.points
    return best(points[tuning().accuracy]) if len(points) > 1 and tuning().accuracy in points.columns else None
