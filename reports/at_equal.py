"""Tables of arms at equal KL or cost.

The table of results compares arms at the last checkpoint, which they reach at different KL and at different cost. In these
tables, a measure is read where a run first reaches a declared value, by linear interpolation between the checkpoints on either
side. A run that never reaches the value is missing. No arm determines the range of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ablations.judges import vetoing
from ablations.outcomes import COSTS, UPTAKE_BY_KIND, Outcome, find, followed, shown
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import ARM, N, by_arm
from ablations.stats.family import KL_POINTS
from ablations.stats.statistics import at_passage
from ablations.tracking.records import Record
from reports.loading import Selection

AXES = {
    "kl": ("KL", "kl_token", (0.02, 0.04, *KL_POINTS)),
    "rollouts": ("roll-outs", "rollouts", (500, 1000, 2000, 4000, 8000, 16000)),
    "seconds": ("seconds of training", "seconds_optimized", (15, 30, 60, 120, 240, 480)),
}
"""Quantity at which a table compares arms (its column, and the end of the table's name) -> its title, the outcome whose curve it
is, and declared values."""
OTHERS = [
    followed("length", "tokens", "length", "mark"),
    followed("diversity", "within-prompt diversity", "diversity", "plain"),
    followed("speaker_similarity", "speaker similarity", "speaker_similarity", "plain"),
]
"""Measures that are shown in addition to the outcomes and the judges."""
NOTE = (
    "Value where a run first reaches the level, by linear interpolation between checkpoints (between the first and "
    "the last for measures taken only there, such as naturalness). Mean over seeds ± half the 95 % t-interval. n: "
    "number of seeds that reached the level; at most these enter the means. A dash: none did. Levels that no run "
    "reached are omitted. Estimates, not tested."
)
COST = (
    "Costs: those of the policy optimization so far, evaluations included, in proportion to its updates. Seconds are "
    "elapsed time; cells that were copied from another grid were timed there. The cost of earlier rounds of an iterated "
    "reward model is not included. Emo-DPO's roll-outs and reward-model calls are for curves and the penalty only, and the "
    "samples that its pairs are made of are not counted; its seconds include both. Best-of-n has no training cost, but "
    "takes n samples and n calls of the reward model per utterance; its KL is the bound log n - (n - 1) / n, divided by "
    "the mean length."
)


def sheets(selection: Selection) -> list[Sheet]:
    """Return one table per axis, and the uptake of each planted kind at equal KL; tables without rows are omitted."""
    known = shown(selection.records)
    names = {outcome.name for outcome in known}
    judged = [
        followed(judge.accuracy, judge.label, judge.accuracy) for judge in vetoing() if judge.accuracy not in names
    ]
    measures = list(map(_computed_once, [*known, *judged, *OTHERS, *COSTS]))
    tables = [
        _along(selection, name, measures, f"at_{name}", f"At equal {title}", NOTE, COST)
        for name, (title, *_) in AXES.items()
    ]
    note = "Uptake: P(artefact | its emotion is the target) - P(artefact | another is)."
    by_kind = list(map(_computed_once, UPTAKE_BY_KIND))
    tables.append(_along(selection, "kl", by_kind, "uptake_by_kind", "Uptake by kind at equal KL", note, NOTE))
    return [sheet for sheet in tables if sheet is not None]


def _along(
    selection: Selection, along: str, measures: Sequence[Outcome], name: str, title: str, *notes: str
) -> Sheet | None:
    """Return a table with one row per declared value of an axis (key of `AXES`) and arm that moves along it; None if no arm
    does."""
    _, outcome, levels = AXES[along]
    quantity = _computed_once(find(outcome))
    reach = quantity.curve
    records = [r for r in selection.records if len(r.points) > 1 and np.nanmax(reach(r), initial=0.0) > 0]
    moved = {record.label for record in records}
    arms = [arm for arm in selection.arms if arm in moved]
    curves = [o for o in measures if o.name != outcome and any(np.isfinite(o.curve(r)).any() for r in records)]
    rows: list[tuple[Value, ...]] = []
    for level in levels:
        reached = [record for record in records if np.nanmax(reach(record)) >= level]
        part = by_arm(name, title, reached, (_at(outcome, quantity, level) for outcome in curves), arms=arms)
        rows += [(arm, level, *means) for arm, *means in part.rows if reached]
    columns = (ARM, Column(along, quantity.heading, "level"), N, *(replace(o.as_column(), better=0) for o in curves))
    return Sheet(name, title, columns, tuple(rows), notes) if rows and curves else None


def _computed_once(outcome: Outcome) -> Outcome:
    """Return the outcome with a curve that is computed once per record, for tables that read it at many levels."""
    curves: dict[tuple[str, int], NDArray[np.float64]] = {}

    def curve(record: Record) -> NDArray[np.float64]:
        key = record.label, record.seed
        if key not in curves:
            curves[key] = outcome.curve(record)
        return curves[key]

    return replace(outcome, curve=curve)


def _at(outcome: Outcome, quantity: Outcome, level: float) -> Outcome:
    """Return the outcome at the point where the quantity first reaches the level."""
    return replace(outcome, read=lambda record: at_passage(quantity.curve(record), outcome.curve(record), level))
