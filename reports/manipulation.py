"""Manipulation checks: whether a component caused its intended change in the reward model. If not, it counts as untested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ablations.components import Component
from ablations.rendering.summary import scalar
from ablations.stats.contrasts import apply, component_of
from ablations.stats.statistics import Interval, t_interval
from ablations.tracking.records import Record

ASKED = 0.5
"""A component counts as tested only if its training was active in at least this share of its reward models."""


class Checked(NamedTuple):
    """Manipulation check of one component."""

    component: Component
    """Component that is checked."""
    moved: Interval
    """Effect on its target scalar over seeds; n = 0 if it was not measured."""
    weak: bool
    """Whether the component's training was inactive in most of its reward models."""

    @property
    def failed(self) -> bool:
        """Whether training was inactive, or the interval over at least three seeds is not entirely on the intended side of
        0."""
        check = self.component.check
        if (
            check is None or self.weak or self.moved.n < 3
        ):  # with two seeds the interval is so wide that any effect fails
            return self.weak
        return not (self.moved.low > 0 if check.direction > 0 else self.moved.high < 0)


def check(records: Sequence[Record], component: Component, contrast: Mapping[str, float]) -> Checked:
    """Return a component's effect on its target. The arms with positive weight in ``contrast`` have the component."""
    declared = component.check
    if declared is None:
        return Checked(component, t_interval([]), weak=False)
    seeds = sorted({record.seed for record in records})
    treated = {label for label, weight in contrast.items() if weight > 0}
    activity = [value for (label, _), value in scalar(declared.tested, records).items() if label in treated]
    moved = t_interval(apply(contrast, scalar(declared.scalar, records), seeds))
    return Checked(component, moved, weak=bool(activity) and float(np.mean(activity)) < ASKED)


def checks(records: Sequence[Record], contrasts: Mapping[str, Mapping[str, float]]) -> dict[str, Checked]:
    """Return contrast -> check of its component, for contrasts of one component.

    Each component is checked once, by its first contrast: the main effect, if the factorial is complete.
    """
    parts = {name: part for name in contrasts if (part := component_of(name))}
    first_contrast = {part: name for name, part in reversed(parts.items())}
    results = {part: check(records, part, contrasts[name]) for part, name in first_contrast.items()}
    return {name: results[part] for name, part in parts.items()}


def note(checked: Mapping[str, Checked]) -> list[str]:
    """Return a line for the caption; empty if nothing was measured."""
    lines = []
    for check in {check.component: check for check in checked.values()}.values():
        moved, declared = check.moved, check.component.check
        if declared is None or (not moved.n and not check.weak):
            continue
        bounds = "" if moved.n < 2 else f" [{moved.low:+.3f}, {moved.high:+.3f}]"
        effect = f" on {declared.scalar} {moved.mean:+.3f}{bounds}" if moved.n else ""
        weak = f", {declared.weak}" if check.weak else ""
        lines.append(f"{check.component.label}{effect}{weak}{' FAILED' if check.failed else ''}")
    return [f"Manipulation checks, effects on the reward model: {'; '.join(lines)}."] if lines else []
