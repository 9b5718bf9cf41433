"""Manipulation checks: whether a component moved its own target in the reward model. One that did not has not been tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ablations.contrasts import NAMES, apply
from ablations.records import Record
from ablations.statistics import Interval, t_interval

TARGETS = {"ls": ("rm_ece", -1), "eam": ("rm_smoothness", +1), "adv": ("rm_pgd_accuracy_0.1", +1)}
"""What each component has to move in the reward model, and which way."""
WEAK = 0.5
"""Adv counts as tested only where at least this share of its reward models saw L_adv/L_emo reach `rrpo.examine.ADV_TESTED`."""


class Check(NamedTuple):
    """One component's."""

    part: str
    """The component."""
    moved: Interval
    """Effect on its target over seeds; n = 0 where it was not measured."""
    weak: bool
    """Whether most reward models with Adv were attacked so weakly in their fine-tuning that nothing was asked of them."""

    @property
    def failed(self) -> bool:
        """Whether the interval of three seeds or more does not lie on the wanted side of zero, or the attack was weak."""
        if self.weak or self.moved.n < 3:  # two seeds' is so wide that any effect would fail
            return self.weak
        return not (self.moved.low > 0 if TARGETS[self.part][1] > 0 else self.moved.high < 0)


def check(records: Sequence[Record], part: str, contrast: Mapping[str, float]) -> Check:
    """A component's effect on what it has to move, by a contrast of the records' labels: those of positive weight have it."""
    name, _ = TARGETS[part]
    outcomes = {(r.label, r.seed): r.scalars[name] for r in records if name in r.scalars}
    seeds = sorted({record.seed for record in records})
    with_it = {label for label, weight in contrast.items() if weight > 0}
    strong = [r.scalars["adv_tested"] for r in records if r.label in with_it and "adv_tested" in r.scalars]
    weak = part == "adv" and bool(strong) and float(np.mean(strong)) < WEAK
    return Check(part, t_interval(apply(contrast, outcomes, seeds)), weak)


def note(checks: Sequence[Check]) -> list[str]:
    """A line for the caption; none where nothing was measured."""
    said = []
    for one in checks:
        moved, name = one.moved, TARGETS[one.part][0]
        if not moved.n and not one.weak:
            continue
        bounds = "" if moved.n < 2 else f" [{moved.low:+.3f}, {moved.high:+.3f}]"
        effect = f" on {name} {moved.mean:+.3f}{bounds}" if moved.n else ""
        attack = ", L_adv/L_emo under 1.05 in most fine-tunings" if one.weak else ""
        said.append(f"{NAMES[one.part]}{effect}{attack}{' FAILED' if one.failed else ''}")
    return [f"Manipulation checks, main effects in the reward model: {'; '.join(said)}."] if said else []
