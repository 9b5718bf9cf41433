"""Tables of contrasts: within-seed effects of the components on the primary outcome and on all others.

The tested family, the primary outcome and the decision rule are declared in `ablations.stats.family`; `reports.verdicts`
applies them. All other contrasts are secondary: an interval and an effect size, without a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ablations.grids import ALTERNATIVES
from ablations.outcomes import Outcome, find, shown
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.stats.contrasts import ABOVE_SFT, SFT, Weights, apply, difference, interactions
from ablations.stats.family import ALPHA, BESIDE, DIVERGED, POWER, margin_text, primary
from ablations.stats.inference import improvement
from ablations.stats.power import detectable, spread_bound
from ablations.stats.statistics import Interval, t_interval
from reports import manipulation
from reports.loading import Selection
from reports.verdicts import INTERIM, Row, judge, scored, simultaneous
from rrpo.arms import BASE, RRPO

SECONDARY = "secondary, not tested"


def above_sft() -> dict[str, Weights]:
    """Return RRPO - SFT, which decides between "stops" and "reduces"."""
    return {ABOVE_SFT: difference(RRPO, SFT)}


def secondary() -> dict[str, Weights]:
    """Return the contrasts that are estimated but never tested."""
    references = {"oracle - DiffRO": difference("oracle", BASE), "RRPO - pretrained": difference(RRPO, "pretrained")}
    alternatives = {f"RRPO - {arm}": difference(RRPO, arm) for arm in ALTERNATIVES}
    return interactions() | references | alternatives


def rows(selection: Selection, score: float = DIVERGED) -> list[Row]:
    """Return all contrasts that can be computed for some seed: the tested family, RRPO - SFT at the family's level, and the
    others.

    Grids of settings have no plain arms and hence no rows here. ``score`` is the primary outcome of a diverged cell; NaN
    excludes its seed.
    """
    records, family = selection.records, selection.tested.get("", {})
    failed = [name for name, check in manipulation.checks(records, family).items() if check.failed]
    computed = judge(selection, records, family, failed, score)
    outcomes = scored(primary().values(records), selection, score)
    for name, weights in (above_sft() | secondary()).items():
        x = [value for value in apply(weights, outcomes, _seeds(selection)) if math.isfinite(value)]
        level = simultaneous(family) if name in above_sft() else 0.95
        computed.append(Row(name, False, tuple(x), t_interval(x, level), SECONDARY))
    return [row for row in computed if row.values]


def _seeds(selection: Selection) -> list[int]:
    """Return the seeds used in the tests of plain arms."""
    return selection.seeds({arm for weights in selection.tested.get("", {}).values() for arm in weights})


def against(selection: Selection, arm: str, outcome: Outcome) -> dict[str, Interval]:
    """Return other arm -> the outcome of ``arm`` minus that of the other, over shared seeds, with a 95 % interval."""
    values, seeds = outcome.values(selection.records), sorted({record.seed for record in selection.records})
    other_arms = (other for other in selection.arms if other != arm)
    return {other: t_interval(apply(difference(arm, other), values, seeds)) for other in other_arms}


def screen(selection: Selection) -> Sheet | None:
    """Return the first table of a screen: RRPO minus every other arm, in the primary outcome and `BESIDE`; None without
    RRPO."""
    outcomes = [primary(), *(find(name) for name in BESIDE)]
    by_outcome = [against(selection, RRPO, outcome) for outcome in outcomes]
    rows: list[tuple[Value, ...]] = [
        (f"{RRPO} - {arm}", float(by_outcome[0][arm].n), *(by_arm[arm] for by_arm in by_outcome))
        for arm in by_outcome[0]
        if by_outcome[0][arm].n
    ]
    columns = (
        Column("contrast", "contrast"),
        Column("n", "n", "count"),
        *(Column(outcome.name, _difference(outcome), outcome.difference_unit) for outcome in outcomes),
    )
    notes = (
        "Screen: differences within seeds at the last update, mean ± half the unadjusted 95 % t-interval. Nothing is "
        "tested; among this many intervals, some exclude 0 by chance. Arms end at different KL and cost: see the "
        "tables at equal KL, roll-outs and seconds.",
        primary().note,
    )
    return Sheet("screen", "RRPO against the other systems", columns, tuple(rows), notes) if rows else None


def first_sheet(selection: Selection, rows: Sequence[Row]) -> Sheet | None:
    """Return the first table of a report: the family and RRPO - SFT, in the primary outcome and `BESIDE`; None if empty."""
    if selection.screen:
        return screen(selection)
    family = selection.tested.get("", {})
    contrasts = family | above_sft()
    beside = [find(name) for name in BESIDE]
    values = [outcome.values(selection.records) for outcome in beside]
    body: list[tuple[Value, ...]] = [
        (
            row.name,
            float(len(row.values)),
            row.interval,
            row.verdict if row.primary else "",
            *(t_interval(apply(contrasts[row.name], outcomes, _seeds(selection))) for outcomes in values),
        )
        for row in rows
        if row.name in contrasts
    ]
    columns = (
        Column("contrast", "contrast"),
        Column("n", "n", "count"),
        Column(primary().name, _difference(primary()), primary().difference_unit),
        Column("verdict", "verdict"),
        *(Column(outcome.name, _difference(outcome), outcome.difference_unit) for outcome in beside),
    )
    notes = (
        f"Differences within seeds at the last update, mean ± half the interval. {primary().title}: paired "
        f"t-intervals, simultaneous over {len(family)} contrasts ({100 * simultaneous(family):.4g} %). An interval "
        f"that excludes 0: the arms differ; within ±{margin_text()}: equivalent; otherwise undecided, with the number "
        f"of seeds needed to detect {margin_text()} with power {POWER:g} (at the 80 % upper bound of the standard "
        "deviation). No verdict is given if another judge's own interval at the same level lies entirely on the "
        "opposite side of 0. All other columns: 95 % intervals, estimates only.",
        primary().note,
    )
    return Sheet("components", "What each component does", columns, tuple(body), notes) if body else None


def sheet(selection: Selection, rows: Sequence[Row]) -> Sheet | None:
    """Return a table of all contrasts of the primary outcome, with effect sizes; None if there are none."""
    family = selection.tested.get("", {})
    body: list[tuple[Value, ...]] = [
        (
            row.name,
            "primary" if row.primary else "secondary",
            row.interval,
            row.verdict,
            improvement(row.values),
        )
        for row in rows
    ]
    columns = (
        Column("contrast", "contrast"),
        Column("family", "family"),
        Column("points", "points", "gain"),
        Column("verdict", "verdict"),
        Column("improved", "improved, %", "share"),
    )
    smallest = {row.name: _detectable(row.values, len(family)) for row in rows if row.primary}
    listed = "; ".join(f"{name} {100 * value:.1f}" for name, value in smallest.items() if math.isfinite(value))
    note = (
        f"Detectable with power {POWER:g} (these seeds, upper bound of their standard deviation), in points: {listed}."
    )
    notes = [
        f"Contrasts of the {primary().label}, in points, within each seed; mean ± half the interval. Intervals are "
        f"simultaneous over the primary family ({'; '.join(family)}), at the same level for {ABOVE_SFT}, and 95 % for "
        "the other contrasts, which are not tested.",
        "Improved: share of seeds with a difference above zero.",
        *([note] if listed else []),
        *(_interim(selection) if any(row.verdict == INTERIM for row in rows) else []),
        *manipulation.note(manipulation.checks(selection.records, family)),
    ]
    return Sheet("effects", "Contrasts", columns, tuple(body), tuple(notes)) if body else None


def _detectable(values: Sequence[float], m: int) -> float:
    """Return the difference that this many seeds detect, at the upper bound of their standard deviation; NaN below two
    seeds."""
    n = len(values)
    return detectable(spread_bound(float(np.std(values, ddof=1)), n), n, ALPHA / m, POWER) if n > 1 else math.nan


def _interim(selection: Selection) -> list[str]:
    available = {record.label for record in selection.records} | {arm for arm, _ in selection.diverged}
    missing = [name for name, weights in selection.tested.get("", {}).items() if not set(weights) <= available]
    suffix = f" Missing: {'; '.join(missing)}." if missing else ""
    planned = (
        f"the {selection.planned_n} planned seeds" if selection.planned_n else "all planned seeds (none is planned)"
    )
    return [f"Interim: a contrast is tested once its cells are complete in {planned}.{suffix}"]


def outcomes_sheet(selection: Selection) -> Sheet | None:
    """Return the contrasts of the first table in every outcome; None if none can be computed."""
    records, seeds = selection.records, _seeds(selection)
    available = {record.label for record in records}
    outcomes = shown(records)
    values = [outcome.values(records) for outcome in outcomes]
    contrasts = selection.tested.get("", {}) | above_sft()
    body: list[tuple[Value, ...]] = [
        (name, *(t_interval(apply(weights, by_cell, seeds)) for by_cell in values))
        for name, weights in contrasts.items()
        if set(weights) <= available
    ]
    if not any(value.n for row in body for value in row[1:] if isinstance(value, Interval)):
        return None
    columns = (Column("contrast", "contrast"), *(Column(o.name, _difference(o), o.difference_unit) for o in outcomes))
    notes = (
        "Paired differences within seeds in every outcome, mean ± half the 95 % t-interval. Estimates, not tested "
        f"(the primary outcome, {primary().label}, is tested in the first table).",
    )
    return Sheet("outcomes", "Every outcome", columns, tuple(body), notes)


def _difference(outcome: Outcome) -> str:
    """Return the heading of a column of differences."""
    return f"{outcome.label}, points" if outcome.difference_unit == "gain" else outcome.label
