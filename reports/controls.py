"""Check the controls: KL and the content reward alone must not raise emotion (rule 6 of ``docs/regime.md``).

A control is an arm whose reward contains no information about emotion. It fails if the 95 % interval of its difference from
SFT, paired over its seeds, lies entirely above 0 in gold accuracy or in the primary outcome. If a control fails, the regime
fails.
"""

from __future__ import annotations

from dataclasses import dataclass

from ablations.grids import CONTROLS
from ablations.outcomes import clean_at_any_length, find
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import N, seeds_of
from ablations.stats.contrasts import SFT, difference
from ablations.stats.family import PRIMARY_OUTCOME
from ablations.stats.statistics import Interval, in_points
from reports.effects import estimates
from reports.loading import Selection
from reports.verdicts import VERDICT

WATCHED = (PRIMARY_OUTCOME, "gold")
"""Outcomes in which no control may exceed SFT."""
HOLDS, FAILS, UNKNOWN = "holds", "FAILS", "unknown (fewer than two seeds)"


@dataclass(frozen=True)
class Control:
    """One control arm."""

    arm: str
    """Name of the arm."""
    changes: dict[str, Interval]
    """Outcome in `WATCHED` -> difference from SFT at the last update, with a 95 % interval."""
    at_any_length: Interval
    """The same difference in clean success without the rule on odd lengths, which SFT cannot break."""

    @property
    def raised(self) -> list[str]:
        """Names of the outcomes in which the control exceeds SFT."""
        return [name for name, change in self.changes.items() if change.low > 0]

    @property
    def verdict(self) -> str:
        """Whether the control holds, in words."""
        if min(change.n for change in self.changes.values()) < 2:
            return UNKNOWN
        return FAILS if self.raised else HOLDS


def controls(selection: Selection) -> list[Control]:
    """Return the controls that share a seed with SFT."""
    seeds = selection.seeds_run
    any_length = clean_at_any_length()
    contrasts = {arm: difference(arm, SFT) for arm in CONTROLS}
    results = []
    for arm, by_column in estimates(selection, contrasts, [*map(find, WATCHED), any_length], seeds).items():
        by_name = {column.name: change for column, change in by_column.items()}
        results.append(Control(arm, {name: by_name[name] for name in WATCHED}, by_name[any_length.name]))
    return [control for control in results if any(change.n for change in control.changes.values())]


def sheet(controls: list[Control]) -> Sheet | None:
    """Return a table with one row per control; None if there are none."""
    outcomes = [find(name) for name in WATCHED]
    any_length = clean_at_any_length()
    columns = {o.name: Column(o.name, f"{o.label} - SFT's, points", o.difference_unit) for o in (*outcomes, any_length)}
    rows: list[dict[Column, Value]] = [
        {
            Column("control", "control"): control.arm,
            N: seeds_of(control.changes.values()),
            **{columns[name]: change for name, change in control.changes.items()},
            columns[any_length.name]: control.at_any_length,
            VERDICT: control.verdict,
        }
        for control in controls
    ]
    note = (
        "Controls: arms whose reward contains no information about emotion. Difference from SFT at the last update, "
        "paired by seed, mean ± half the 95 % t-interval. A control fails, and the regime with it, if the interval "
        f"lies entirely above 0 in {' or '.join(o.label for o in outcomes)}. {any_length.label.capitalize()} "
        f"(not part of this rule): {any_length.note}."
    )
    return Sheet.of("controls", "Controls", rows, note)


def failures(controls: list[Control]) -> list[str]:
    """Return one sentence of the answer per control that failed; empty if all hold."""
    return [
        f"CONTROL FAILED: {control.arm} exceeds SFT in "
        + " and ".join(f"{find(name).label} ({in_points(control.changes[name])} points)" for name in control.raised)
        + ": differences from SFT may not be caused by the reward model."
        for control in controls
        if control.verdict == FAILS
    ]
