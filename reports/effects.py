"""What each component does to the outcomes: within-seed contrasts, tested at the planned number of seeds only.

The primary family and outcome are declared in `ablations.family`: paired t on seeds, Holm over the family. Everything else here
is secondary: interval and effect size, no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablations.components import BASE, COMPONENTS
from ablations.contrasts import (
    Weights,
    apply,
    component_of,
    corner_effects,
    difference,
    interactions,
    main_effects,
)
from ablations.family import family as primary_family
from ablations.family import family_text, margin_text, primary
from ablations.inference import Effect, PairedTest, effect_size, improvement, paired_test
from ablations.outcomes import OUTCOMES, Outcome
from ablations.power import alpha_at, detectable, spread_bound
from ablations.records import Record
from ablations.sheet import Column, Sheet, Value
from ablations.statistics import Interval, t_interval
from reports import manipulation
from reports.verdicts import Judged, by_judge, judge, lacking, settled


def all_contrasts() -> dict[str, Weights]:
    """The primary family first; the others are described, never tested."""
    frames = {"oracle - DiffRO": difference("oracle", BASE), "placebo - SFT": difference("placebo", "sft")}
    return primary_family() | corner_effects() | interactions() | frames


@dataclass(frozen=True)
class Row:
    """One contrast over seeds."""

    name: str
    """What it compares."""
    primary: bool
    """Whether it belongs to the tested family."""
    values: tuple[float, ...]
    """One a seed, where all its arms are there."""
    test: PairedTest
    """Mean with its interval; p values, which stand in a report only at a declared look."""
    effect: Effect
    """g_z."""
    holm_p: float
    """Adjusted over the family; NaN where nothing is tested."""
    tost_p: float
    """'Within three points'; NaN where nothing is tested."""
    verdict: str
    """In words."""


def rows(
    records: Sequence[Record], looks: Sequence[int], diverged: Collection[tuple[str, int]] = (), ahead: int = 1
) -> tuple[list[Row], list[str]]:
    """All contrasts of a grid's records, and notes. ``looks`` are the planned numbers of seeds, rising, the first ``ahead`` of
    them declared before any result.

    Tests appear when the seeds number exactly a declared look and every arm of the family is settled in all of them, complete
    or ``diverged``; a diverged cell takes its seed out of the contrasts it belongs to. Otherwise the table is interim.
    """
    seeds = sorted({record.seed for record in records} | {seed for _, seed in diverged})
    there = {record.label for record in records} | {arm for arm, _ in diverged}
    declared_family = primary_family()
    wanted = {name: w for name, w in all_contrasts().items() if set(w) <= there}
    values, *others = by_judge(records, wanted, seeds)
    values = {name: x for name, x in values.items() if len(x)}
    family = {name: x for name, x in values.items() if name in declared_family}
    if not family:
        return [], []
    gaps = {name: lacking(wanted[name], seeds, diverged) for name in family}
    whole = len(family) == len(declared_family) and settled(family, wanted, seeds, diverged)
    n = len(seeds) if whole else min(map(len, family.values()))
    declared = whole and n in looks and min(map(len, family.values())) > 1
    alpha = alpha_at(n, looks) if declared else math.nan
    main = zip(COMPONENTS, main_effects().values(), strict=True)
    checks = {component: manipulation.check(records, component, weights) for component, weights in main}
    failed = [name for name in family if (part := component_of(name)) and checks[part].failed]
    judged = judge(family, others, failed, alpha) if declared else {}
    found = []
    for name, x in values.items():
        untested = Judged(math.nan, math.nan, "interim" if name in family else "secondary, not tested")
        found.append(Row(name, name in family, tuple(x), paired_test(x), effect_size(x), *judged.get(name, untested)))
    notes = _notes(n, looks, ahead, alpha, [name for name in declared_family if name not in family], family)
    if declared and any(gaps.values()):
        notes.append(f"Seeds left out, since a cell diverged: {', '.join(f'{k} {v}' for k, v in gaps.items() if v)}.")
    return found, notes + manipulation.note(list(checks.values()))


def _notes(
    n: int, looks: Sequence[int], ahead: int, alpha: float, absent: Sequence[str], family: Mapping[str, np.ndarray]
) -> list[str]:
    lines = [
        f"Contrasts of the {primary().label}, in points, within each seed; mean ± half the 95 % t-interval. Primary family: "
        f"{family_text()}; the others are secondary and not tested.",
        "g_z: mean over standard deviation of the seeds' differences, Hedges-corrected, with its 95 % interval. Improved: share "
        "of seeds above zero.",
    ]
    if math.isnan(alpha):
        planned = ", ".join(map(str, looks)) or "none declared"
        whole = f" with the whole family; not there: {'; '.join(absent)}" if absent else ""
        return [
            *lines,
            f"Interim, n = {n}: estimates only. Tests appear at the planned number of seeds ({planned}){whole}.",
        ]
    least = {name: detectable(spread_bound(x), len(x), alpha / len(family)) for name, x in family.items()}
    found = "; ".join(f"{name} {100 * value:.1f}" for name, value in least.items() if math.isfinite(value))
    return [
        *lines,
        f"Paired t on n = {n} seeds, Holm over {len(family)}, alpha = {alpha:.4f}{_spending(n, looks, ahead, alpha)}. TOST: p of "
        f"'over ±{margin_text()}', unadjusted; 'equivalent' by its Holm p.",
        "Undecided: with the seeds named, a difference is either found or equivalent, whatever it is, if the spread is not above "
        "its 80 % upper bound. "
        f"With these seeds and that spread, power .8 at alpha / {len(family)} takes a difference, in points, of: "
        f"{found or 'none'}.",
    ]


def _spending(n: int, looks: Sequence[int], ahead: int, alpha: float) -> str:
    """What a reader has to know of several looks: how alpha was split, and what it costs when an earlier one ended the matter."""
    if len(looks) == 1:
        return ""
    said = f"; looks at n = {', '.join(map(str, looks))}, O'Brien-Fleming spending"
    if n in looks[:ahead]:
        return said
    return said + (
        f". The seeds beyond {looks[ahead - 1]} were planned later, and the looks up to it had an alpha of their own, 0.05: "
        f"whoever would have stopped there has a chance of a false claim of up to {0.05 + alpha:.4f} over all"
    )


COLUMNS = (
    Column("contrast", "contrast"),
    Column("family", "family"),
    Column("points", "points", "gain"),
    Column("verdict", "verdict"),
    Column("holm_p", "p (t, Holm)", "p"),
    Column("tost_p", "p (TOST)", "p"),
    Column("g_z", "g_z", "effect"),
    Column("improved", "improved, %", "share"),
)


def sheet(found: Sequence[Row], notes: Sequence[str]) -> Sheet | None:
    """The contrasts as a table; p values only where they were declared; None without rows."""
    body = [
        (
            row.name,
            "primary" if row.primary else "secondary",
            row.test.mean,
            row.verdict,
            row.holm_p,
            row.tost_p if math.isfinite(row.holm_p) else math.nan,
            Interval(*row.effect, row.test.mean.n),
            improvement(row.values),
        )
        for row in found
    ]
    return Sheet("effects", "What each component does", COLUMNS, tuple(body), tuple(notes)) if body else None


def outcomes_sheet(records: Sequence[Record]) -> Sheet | None:
    """The primary family's contrasts, and the effects at the RRPO corner, of every outcome; None without any."""
    seeds = sorted({record.seed for record in records})
    there = {record.label for record in records}
    values = {outcome.name: outcome.values(records) for outcome in OUTCOMES}
    wanted = {name: w for name, w in (primary_family() | corner_effects()).items() if set(w) <= there}
    body: list[tuple[Value, ...]] = [
        (name, *(t_interval(apply(weights, found, seeds)) for found in values.values()))
        for name, weights in wanted.items()
    ]
    if not any(value.n for row in body for value in row[1:] if isinstance(value, Interval)):
        return None
    columns = [Column("contrast", "contrast"), *(Column(o.name, _difference(o), o.difference_unit) for o in OUTCOMES)]
    notes = (
        "Paired differences within seeds in every outcome, mean ± half the 95 % t-interval; estimates, not tested (the primary "
        f"outcome, {primary().label}, is tested in the table of effects).",
    )
    return Sheet("outcomes", "Every outcome", tuple(columns), tuple(body), notes)


def _difference(outcome: Outcome) -> str:
    """A difference's heading."""
    return f"{outcome.label}, points" if outcome.difference_unit == "gain" else outcome.label
