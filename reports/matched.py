"""What hacking looks like at matched KL: every measure where the arms of a seed stand equally far from the SFT policy.

The table of results has the last checkpoint, which arms reach at different KL. Here each measure is read at the end of the common
range of gold gain (`ablations.statistics.matched_kl_gain`), by linear interpolation between the checkpoints on either side.
"""

from __future__ import annotations

from dataclasses import replace

from ablations.judges import vetoing
from ablations.outcomes import OUTCOMES, reaches
from ablations.sheet import Column, Sheet, Value
from ablations.statistics import at_reach, t_interval
from ablations.summary import FRAMES
from reports.store import Selection

OTHERS = (
    Column("length", "tokens", "mark"),
    Column("diversity", "within-prompt diversity", "plain", +1),
    Column("speaker_similarity", "speaker similarity", "plain", +1),
)
"""Columns of the points beside the outcomes' and the judges'."""
NOTES = (
    "Where the arms of a seed (and setting) stand equally far from the SFT policy: at the end of the common range of "
    "d = sqrt(KL per token), linear between the checkpoints on either side. Mean over seeds ± half the 95 % t-interval.",
    "An arm that stops early by design keeps its last value; one that did not move is left out. The third judge and the speaker "
    "encoder are asked at three checkpoints alone (start, the middle one, end): a coarse reading. Secondary, not tested.",
)


def columns() -> list[Column]:
    """Outcomes that are followed over the checkpoints, by all judges, and `OTHERS`."""
    followed = [replace(o.as_column(), name=o.column) for o in OUTCOMES if o.column and o.column != "kl_token"]
    heard = [Column(judge.accuracy, f"{judge.label}, %", "percent", +1) for judge in vetoing()]
    return [*followed, *heard, *OTHERS]


def sheet(selection: Selection) -> Sheet | None:
    """One row an arm that moved; None where none did."""
    ends = reaches(selection.records)
    shown = [
        c for c in columns() if any(c.name in r.points and r.points[c.name].notna().any() for r in selection.records)
    ]
    rows: list[tuple[Value, ...]] = []
    for arm in selection.arms:
        own = [(r.points, ends[arm, r.seed]) for r in selection.of(arm) if (arm, r.seed) in ends and len(r.points) > 1]
        if own:
            here = [
                t_interval([at_reach(p["sqrt_kl"], p[c.name], end) for p, end in own if c.name in p]) for c in shown
            ]
            rows.append((arm, float(len(own)), t_interval([end for _, end in own]), *here))
    head = (Column("arm", "arm"), Column("n", "n", "count"), Column("d", "d", "mark"))
    return Sheet("matched", "At matched KL", (*head, *shown), tuple(rows), NOTES, FRAMES) if rows else None
