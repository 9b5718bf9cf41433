"""The table of arms at the checkpoint that the tuning judge would have selected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ablations.judges import tuning
from ablations.outcomes import (
    Outcome,
    followed,
    shown,
)
from ablations.rendering.sheet import Sheet
from ablations.rendering.summary import by_arm
from ablations.tracking.records import Record
from reports.loading import Selection


def sheet(selection: Selection) -> Sheet | None:
    """Return every optimized arm at the checkpoint that the tuning judge would have selected; None if none was optimized.

    This is the alternative to RRPO's components: monitor a held-out judge and keep the best checkpoint.
    """
    outcomes = [followed("step", "selected update", "step", "mark"), *shown(selection.records)]
    chosen = (record for record in selection.records if record.config.get("arm.best_of", "null") == "null")
    records = [record for record in chosen if selected(record) is not None]
    note = (
        f"Every arm at the checkpoint with the highest accuracy by the {tuning().label}, from the same runs. Mean "
        "over seeds ± half the 95 % t-interval. Accuracies, shares of samples and phone errors are those of the prompts "
        "that all checkpoints have, fewer than in the table of results. At the best of several noisy checkpoints, the "
        "accuracy by the selecting judge is biased upwards, and so, less, is all that is measured on the same samples. "
        "Secondary, not tested."
    )
    return by_arm("early_stopped", "Early stopping", records, map(_stopped, outcomes), note) if records else None


def _stopped(outcome: Outcome) -> Outcome:
    """Return the outcome at the selected checkpoint."""
    return replace(outcome, read=lambda record: float(outcome.curve(record)[selected(record)]))


def selected(record: Record) -> int | None:
    """Return the index of the checkpoint with the highest accuracy by the tuning judge, the first one if there are ties; None if
    none is measured."""
    accuracy = record.trajectory.get(tuning().accuracy, np.empty(0))
    return int(np.nanargmax(accuracy)) if len(accuracy) > 1 and np.isfinite(accuracy).any() else None
