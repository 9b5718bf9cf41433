"""Tables of every measure at declared values of KL per token, of roll-outs and of training time.

The table of results compares arms at the last checkpoint, which they reach at different KL and at different cost. Here a
measure is read where a run first reaches a declared value, by linear interpolation between the checkpoints on either side. A
run that never reaches the value is missing. No arm determines the range of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ablations.judges import vetoing
from ablations.outcomes import COSTS, UPTAKE_BY_KIND, Curve, Outcome, find, followed, shown
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import ARM, N, by_arm
from ablations.stats.family import KL_POINTS
from ablations.stats.statistics import at_passage
from reports.loading import Selection


class Axis(NamedTuple):
    """The quantity at which a table compares the arms."""

    title: str
    """Rest of the table's title, after *At equal*."""
    outcome: str
    """Name of the outcome whose curve is this quantity."""
    levels: tuple[float, ...]
    """Declared values."""


AXES = {
    "kl": Axis("KL", "kl_token", KL_POINTS),
    "rollouts": Axis("roll-outs", "rollouts", (500, 1000, 2000, 4000, 8000)),
    "seconds": Axis("seconds of training", "seconds_optimized", (15, 30, 60, 120, 240)),
}
"""Name of the column, and last part of the table's name -> axis."""
OTHERS = [
    followed("length", "tokens", "length", "mark"),
    followed("diversity", "within-prompt diversity", "diversity", "plain"),
    followed("speaker_similarity", "speaker similarity", "speaker_similarity", "plain"),
]
"""Measures that are shown in addition to the outcomes and the judges."""
NOTE = (
    "Value where a run first reaches the level, by linear interpolation between checkpoints (between the first and "
    "the last for measures taken only there, such as naturalness). Mean over seeds ± half the 95 % t-interval. n: "
    "number of seeds that reached the level; only these enter the means. A dash: none did. Levels that no run "
    "reached are omitted. Estimates, not tested."
)
COST = (
    "Costs: those of the policy optimization so far, evaluations included, in proportion to its updates. The cost of "
    "drawing preference pairs beforehand and of earlier rounds of an iterated reward model is not included. "
    "Best-of-n has no training cost, but takes n samples and n calls of the reward model per utterance."
)


def outcomes(selection: Selection) -> list[Outcome]:
    """Return what the tables show: outcomes, the judges with a veto, `OTHERS` and costs."""
    known = shown(selection.records)
    names = {o.name for o in known}
    judged = [followed(j.accuracy, j.label, j.accuracy) for j in vetoing() if j.accuracy not in names]
    return [*known, *judged, *OTHERS, *COSTS]


def sheets(selection: Selection) -> list[Sheet]:
    """Return one table per axis, and the uptake of each planted kind at equal KL; tables without rows are omitted."""
    measures = outcomes(selection)
    tables = [
        table(selection, name, measures, f"at_{name}", f"At equal {axis.title}", NOTE, COST)
        for name, axis in AXES.items()
    ]
    note = "Uptake: P(artefact | its emotion is the target) - P(artefact | another is)."
    tables.append(table(selection, "kl", UPTAKE_BY_KIND, "uptake_by_kind", "Uptake by kind at equal KL", note, NOTE))
    return [sheet for sheet in tables if sheet is not None]


def table(
    selection: Selection, along: str, measures: Sequence[Outcome], name: str, title: str, *notes: str
) -> Sheet | None:
    """Return a table with one row per declared value of an axis (key of `AXES`) and arm that moves along it; None if no arm
    does."""
    axis = AXES[along]
    quantity = find(axis.outcome)
    reach = quantity.curve
    records = [r for r in selection.records if len(r.points) > 1 and np.nanmax(reach(r), initial=0.0) > 0]
    moved = {record.label for record in records}
    arms = [arm for arm in selection.arms if arm in moved]
    curves = [o for o in measures if o.name != axis.outcome and any(np.isfinite(o.curve(r)).any() for r in records)]
    rows: list[tuple[Value, ...]] = []
    for level in axis.levels:
        reached = [record for record in records if np.nanmax(reach(record)) >= level]
        part = by_arm(name, title, reached, (_at(outcome, reach, level) for outcome in curves), arms=arms)
        rows += [(arm, level, *means) for arm, *means in part.rows if reached]
    columns = (ARM, Column(along, quantity.heading, "level"), N, *(replace(o.as_column(), better=0) for o in curves))
    return Sheet(name, title, columns, tuple(rows), notes) if rows and curves else None


def _at(outcome: Outcome, reach: Curve, level: float) -> Outcome:
    """Return the outcome at the point where the quantity with the curve ``reach`` first reaches the level."""
    return replace(outcome, read=lambda record: at_passage(reach(record), outcome.curve(record), level))
