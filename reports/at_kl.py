"""Every measure where the arms stand equally far from the SFT policy: at declared values of KL per token.

The table of results has the last checkpoint, which arms reach at different KL. Here a measure is read where a run first passes a
declared KL, linear between the checkpoints on either side. A run that did not get there is missing; no arm sets another's range.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ablations.judges import vetoing
from ablations.outcomes import Outcome, followed, shown
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.stats.family import KL_POINTS
from ablations.stats.statistics import at_passage, t_interval
from reports.loading import Selection

OTHERS = [
    followed("length", "tokens", "length", "mark"),
    followed("diversity", "within-prompt diversity", "diversity", "plain"),
    followed("speaker_similarity", "speaker similarity", "speaker_similarity", "plain"),
]
"""What is shown beside the outcomes and the judges."""
NOTES = (
    "Where a run first passes the KL, linear between the checkpoints on either side (for what is asked at first and last alone, "
    "such as naturalness, between those). n: seeds that got there, of whom alone the means speak; a dash: none did. Mean over "
    "seeds ± half the 95 % t-interval. Estimates, not tested.",
)


def outcomes(selection: Selection) -> list[Outcome]:
    """What is followed over the checkpoints: outcomes, the judges with a veto, and `OTHERS`; not KL, the scale itself."""
    known = [o for o in shown(selection.records) if o.curve and o.name != "kl_token"]
    names = {o.name for o in known}
    judged = [followed(j.accuracy, j.label, j.accuracy) for j in vetoing() if j.accuracy not in names]
    return [*known, *judged, *OTHERS]


def sheet(selection: Selection) -> Sheet | None:
    """A row a declared KL and arm that is optimised; None where none is."""
    moved = [record for record in selection.records if len(record.points) > 1 and "kl_token" in record.points.columns]
    curves = {o: {(r.label, r.seed): o.curve(r) for r in moved} for o in outcomes(selection) if o.curve}
    used = {o: found for o, found in curves.items() if any(np.isfinite(y).any() for y in found.values())}
    arms = [arm for arm in selection.arms if any(record.label == arm for record in moved)]
    rows: list[tuple[Value, ...]] = []
    for level in KL_POINTS:
        for arm in arms:
            own = {(r.label, r.seed): r.points["kl_token"].to_numpy(float) for r in moved if r.label == arm}
            there = float(sum(kl.max() >= level for kl in own.values()))
            read = (
                t_interval([at_passage(kl, found[key], level) for key, kl in own.items()]) for found in used.values()
            )
            rows.append((arm, level, there, *read))
    head = (Column("arm", "arm"), Column("kl", "KL, nats/token", "level"), Column("n", "n", "count"))
    columns = (*head, *(replace(o.as_column(), better=0) for o in used))
    return Sheet("at_kl", "At equal KL", columns, tuple(rows), NOTES) if rows else None
