"""Whether the controls hold: what distance and content alone do must not pass for a gain (rule 6 of ``docs/regime.md``).

A control is an arm whose reward knows nothing of emotion. It holds unless the interval of its difference from SFT, paired over
the seeds that it was run on, lies wholly above 0 in gold or in the primary outcome. Where one fails, the regime fails with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ablations.grids import CONTROLS
from ablations.outcomes import find
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.stats.contrasts import SFT, apply, difference
from ablations.stats.family import PRIMARY_OUTCOME
from ablations.stats.statistics import Interval, in_points, t_interval
from reports.loading import Selection

WATCHED = (PRIMARY_OUTCOME, "gold")
"""Outcomes in which no control may end above SFT."""
HOLDS, FAILS, UNTOLD = "holds", "FAILS", "not told (fewer than two seeds)"


@dataclass(frozen=True)
class Control:
    """One control arm."""

    arm: str
    """Its name."""
    changes: dict[str, Interval]
    """By outcome: its difference from SFT at the last update, with a 95 % interval."""

    @property
    def raised(self) -> list[str]:
        """The outcomes in which it ends above SFT."""
        return [name for name, change in self.changes.items() if change.low > 0]

    @property
    def verdict(self) -> str:
        """Whether it holds."""
        if min(change.n for change in self.changes.values()) < 2:
            return UNTOLD
        return FAILS if self.raised else HOLDS


def controls(selection: Selection) -> list[Control]:
    """The controls of which some seed is there beside SFT."""
    records = selection.records
    seeds = sorted({record.seed for record in records})
    values = {name: find(name).values(records) for name in WATCHED}
    found = [
        Control(arm, {name: t_interval(apply(difference(arm, SFT), own, seeds)) for name, own in values.items()})
        for arm in CONTROLS
    ]
    return [control for control in found if any(change.n for change in control.changes.values())]


def sheet(found: list[Control]) -> Sheet | None:
    """One row a control; None without any."""
    if not found:
        return None
    outcomes = [find(name) for name in WATCHED]
    rows: list[tuple[Value, ...]] = [
        (one.arm, float(max(change.n for change in one.changes.values())), *one.changes.values(), one.verdict)
        for one in found
    ]
    columns = (
        Column("control", "control"),
        Column("n", "n", "count"),
        *(Column(o.name, f"{o.label} less SFT's, points", o.difference_unit) for o in outcomes),
        Column("verdict", "verdict"),
    )
    notes = (
        "Controls, whose reward knows nothing of emotion: difference from SFT at the last update, paired over their seeds, mean "
        f"± half the 95 % t-interval. One wholly above 0, in {' or '.join(o.label for o in outcomes)}, fails the control and the "
        "regime with it.",
    )
    return Sheet("controls", "Controls", columns, tuple(rows), notes)


def failures(found: list[Control]) -> list[str]:
    """A sentence of the answer for each control that failed; none where all hold."""
    return [
        f"CONTROL FAILED: {one.arm} ends above SFT in "
        + " and ".join(f"{find(name).label} ({in_points(one.changes[name])} points)" for name in one.raised)
        + ": differences from SFT may not be the reward model's doing."
        for one in found
        if one.verdict == FAILS
    ]
