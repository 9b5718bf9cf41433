"""Manipulation checks: whether each component caused its intended change in the reward models.

A component whose check fails has not been tested, unless a difference is found (`reports.verdicts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ablations.components import Component
from ablations.rendering.summary import scalar
from ablations.stats.contrasts import apply, component_of
from ablations.stats.family import labelled
from ablations.stats.statistics import Interval, t_interval
from ablations.tracking.records import Record
from reports.loading import Selection

ASKED = 0.5
"""A component counts as tested only if it acted (`ManipulationCheck.activity`) on at least this share of its reward models."""
LEAST = 3
"""Minimum number of seeds of a check: with two, the interval is so wide that any effect fails."""


class Checked(NamedTuple):
    """Manipulation check of one component."""

    component: Component
    """Component that is checked."""
    moved: Interval
    """Effect on its target scalar over seeds; n = 0 if it was not measured."""
    weak: bool
    """Whether the component did not act on most of its reward models."""

    @property
    def failed(self) -> bool:
        """Whether it did not act, or the interval over at least `LEAST` seeds is not entirely on the intended side of 0."""
        check = self.component.check
        if check is None or self.weak or self.moved.n < LEAST:
            return self.weak
        return not (self.moved.low > 0 if check.direction > 0 else self.moved.high < 0)


def check(records: Sequence[Record], component: Component, contrast: Mapping[str, float]) -> Checked:
    """Return a component's effect on its target. The arms with positive weight in ``contrast`` have the component."""
    declared = component.check
    if declared is None:
        return Checked(component, t_interval([]), weak=False)
    seeds = sorted({record.seed for record in records})
    treated = {label for label, weight in contrast.items() if weight > 0}
    measured = scalar(declared.activity, records)
    activity = [value >= declared.at_least for (label, _), value in measured.items() if label in treated]
    moved = t_interval(apply(contrast, scalar(declared.scalar, records), seeds))
    return Checked(component, moved, weak=bool(activity) and float(np.mean(activity)) < ASKED)


def checks(records: Sequence[Record], contrasts: Mapping[str, Mapping[str, float]]) -> dict[str, Checked]:
    """Return contrast -> check of its component, for contrasts of one component.

    Each component is checked once, by its first contrast that was measured on `LEAST` seeds: the main effect, if the factorial
    is complete there.
    """
    parts = {name: part for name in contrasts if (part := component_of(name))}
    results: dict[Component, Checked] = {}
    for name, part in parts.items():
        if part not in results or results[part].moved.n < LEAST:
            checked = check(records, part, contrasts[name])
            if part not in results or checked.moved.n >= LEAST:
                results[part] = checked
    return {name: results[part] for name, part in parts.items()}


def unchecked(checked: Mapping[str, Checked], where: str = "") -> list[str]:
    """Return a line for the caption that names the components whose check has too few seeds; empty if there are none."""
    names = [
        part.component.label + ("" if part.moved.n else f" (no `{declared.scalar}` was recorded)")
        for part in _once(checked)
        if (declared := part.component.check) and not part.weak and part.moved.n < LEAST
    ]
    if not names:
        return []
    return [
        f"Manipulation not checked{where} (measured on fewer than {LEAST} seeds): {', '.join(names)}. The verdicts assume that "
        "these components changed the reward model as intended."
    ]


def _once(checked: Mapping[str, Checked]) -> list[Checked]:
    """Return the check of each component once, although several contrasts share it."""
    return list({check.component: check for check in checked.values()}.values())


def component_notes(selection: Selection) -> list[str]:
    """Return the checks of the components that are tested as lines for the caption, one for each setting."""
    lines = []
    for setting, contrasts in selection.tested.items():
        by_label = {name: labelled(weights, setting) for name, weights in contrasts.items()}
        lines += note(checks(selection.records, by_label), f" at {setting}" if setting else "")
    return lines


def note(checked: Mapping[str, Checked], where: str = "") -> list[str]:
    """Return a line for the caption; empty if nothing was measured."""
    lines = []
    for check in _once(checked):
        moved, declared = check.moved, check.component.check
        if declared is None or (not moved.n and not check.weak):
            continue
        bounds = "" if moved.n < 2 else f" [{moved.low:+.3f}, {moved.high:+.3f}]"
        effect = f" on {declared.scalar} {moved.mean:+.3f}{bounds}" if moved.n else ""
        weak = f", {declared.weak}" if check.weak else ""
        lines.append(f"{check.component.label}{effect}{weak}{' FAILED' if check.failed else ''}")
    return [f"Manipulation checks{where}, effects on the reward model: {'; '.join(lines)}."] if lines else []
