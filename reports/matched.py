"""What hacking looks like at matched KL: every measure where the arms of a seed stand equally far from the SFT policy.

The table of results has the last checkpoint, which arms reach at different KL. Here each measure is read at the end of the common
range of gold gain (`ablations.statistics.matched_kl_gain`), by linear interpolation between the checkpoints on either side.
"""

from __future__ import annotations

import numpy as np

from ablations.judges import vetoing
from ablations.outcomes import OUTCOMES, Outcome, followed, reaches
from ablations.sheet import Column, Sheet, Value
from ablations.statistics import at_reach, t_interval
from ablations.summary import FRAMES
from reports.store import Selection

OTHERS = [
    followed("length", "tokens", "length", "mark"),
    followed("diversity", "within-prompt diversity", "diversity", "plain", +1),
    followed("speaker_similarity", "speaker similarity", "speaker_similarity", "plain", +1),
]
"""What is shown beside the outcomes and the judges."""
NOTES = (
    "Where the arms of a seed (and setting) stand equally far from the SFT policy: at the end of the common range of "
    "d = sqrt(KL per token), linear between the checkpoints on either side. Mean over seeds ± half the 95 % t-interval.",
    "An arm that stops early by design keeps its last value; one that did not move is left out. The third judge and the speaker "
    "encoder are asked at three checkpoints alone (start, the middle one, end): a coarse reading. Secondary, not tested.",
)


def outcomes() -> list[Outcome]:
    """What is followed over the checkpoints: outcomes, the judges with a veto, and `OTHERS`; not KL, by which all are matched."""
    judged = [followed(judge.accuracy, judge.label, judge.accuracy, direction=+1) for judge in vetoing()]
    return [*(o for o in OUTCOMES if o.curve and o.name != "kl_token"), *judged, *OTHERS]


def sheet(selection: Selection) -> Sheet | None:
    """One row an arm that moved; None where none did."""
    ends = reaches(selection.records)
    moved = {(r.label, r.seed): r for r in selection.records if (r.label, r.seed) in ends and len(r.points) > 1}
    curves = {o: {key: o.curve(record) for key, record in moved.items()} for o in outcomes() if o.curve}
    shown = {o: found for o, found in curves.items() if any(np.isfinite(y).any() for y in found.values())}
    rows: list[tuple[Value, ...]] = []
    for arm in selection.arms:
        own = [key for key in moved if key[0] == arm]
        if own:
            here = [
                t_interval([at_reach(moved[key].points["sqrt_kl"], found[key], ends[key]) for key in own])
                for found in shown.values()
            ]
            rows.append((arm, float(len(own)), t_interval([ends[key] for key in own]), *here))
    head = (Column("arm", "arm"), Column("n", "n", "count"), Column("d", "d", "mark"))
    return (
        Sheet("matched", "At matched KL", (*head, *(o.as_column() for o in shown)), tuple(rows), NOTES, FRAMES)
        if rows
        else None
    )
