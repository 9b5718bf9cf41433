"""What each component does to the primary outcome: within-seed contrasts, tested at the planned number of seeds only.

Primary family (declared in `ablations.contrasts.PRIMARY`): three main effects and RRPO - DiffRO on gold gain at matched KL,
paired t on seeds, Holm over the four. Everything else here is secondary: interval and effect size, no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablations.contrasts import COMPONENTS, NAMES, PRIMARY, corner_effect, difference, factorial_effect, shapley
from ablations.inference import EXACT, Effect, PairedTest, effect_size, improvement, iqm, paired_test
from ablations.power import alpha_at, detectable, spread_bound
from ablations.records import Record
from ablations.sheet import Column, Sheet
from ablations.statistics import Interval
from reports import manipulation
from reports.verdicts import MARGIN, Judged, by_judge, judge, lacking, settled

SECONDARY: dict[str, dict[str, float]] = (
    {f"{NAMES[part]}, at the RRPO corner": corner_effect(part) for part in COMPONENTS}
    | {f"{NAMES[a]} x {NAMES[b]}": factorial_effect([a, b]) for a, b in (("ls", "eam"), ("ls", "adv"), ("eam", "adv"))}
    | {"LS x EAM x Adv": factorial_effect(COMPONENTS)}
    | {f"{NAMES[part]}, Shapley share of RRPO - DiffRO": shapley(part) for part in COMPONENTS}
    | {
        name: difference(*arms)
        for name, arms in {"oracle - DiffRO": ("oracle", "diffro"), "placebo - SFT": ("placebo", "sft")}.items()
    }
)
"""Described, never tested."""


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
    wanted = {name: w for name, w in (PRIMARY | SECONDARY).items() if set(w) <= there}
    values, *others = by_judge(records, wanted, seeds)
    values = {name: x for name, x in values.items() if len(x)}
    family = {name: x for name, x in values.items() if name in PRIMARY}
    if not family:
        return [], []
    gaps = {name: lacking(wanted[name], seeds, diverged) for name in family}
    whole = len(family) == len(PRIMARY) and settled(family, wanted, seeds, diverged)
    n = len(seeds) if whole else min(map(len, family.values()))
    declared = whole and n in looks and min(map(len, family.values())) > 1
    alpha = alpha_at(n, looks) if declared else math.nan
    main = {f"{NAMES[part]}, main effect": part for part in COMPONENTS}
    checks = {name: manipulation.check(records, part, PRIMARY[name]) for name, part in main.items()}
    failed = [name for name, check in checks.items() if check.failed]
    judged = judge(family, others, failed, alpha) if declared else {}
    found = []
    for name, x in values.items():
        untested = Judged(math.nan, math.nan, "interim" if name in family else "secondary, not tested")
        found.append(Row(name, name in family, tuple(x), paired_test(x), effect_size(x), *judged.get(name, untested)))
    notes = _notes(n, looks, ahead, alpha, [name for name in PRIMARY if name not in family], family)
    if declared and any(gaps.values()):
        notes.append(f"Seeds left out, since a cell diverged: {', '.join(f'{k} {v}' for k, v in gaps.items() if v)}.")
    return found, notes + manipulation.note(list(checks.values()))


def _notes(
    n: int, looks: Sequence[int], ahead: int, alpha: float, absent: Sequence[str], family: Mapping[str, np.ndarray]
) -> list[str]:
    lines = [
        "Contrasts of gold gain at matched KL, in points, within each seed; mean ± half the 95 % t-interval. Primary family: the "
        "three main effects and RRPO - DiffRO; the others are secondary and not tested.",
        "g_z: mean over standard deviation of the seeds' differences, Hedges-corrected, with its 95 % interval. IQM: "
        "interquartile mean from four seeds on, descriptive. Improved: share of seeds above zero.",
    ]
    if math.isnan(alpha):
        planned = ", ".join(map(str, looks)) or "none declared"
        whole = f" with the whole family; not there: {'; '.join(absent)}" if absent else ""
        return [
            *lines,
            f"Interim, n = {n}: estimates only. Tests appear at the planned number of seeds ({planned}){whole}.",
        ]
    flips = f"exact sign flips (smallest possible p {2 / 2**n:.2g})" if n <= EXACT else "sign flips (drawn patterns)"
    least = {name: detectable(spread_bound(x), len(x), alpha / len(PRIMARY)) for name, x in family.items()}
    found = "; ".join(f"{name} {100 * value:.1f}" for name, value in least.items() if math.isfinite(value))
    return [
        *lines,
        f"Paired t on n = {n} seeds, Holm over four, alpha = {alpha:.4f}{_spending(n, looks, ahead, alpha)}. Beside it, "
        f"unadjusted: {flips} and exact Wilcoxon. TOST: p of 'over ±{100 * MARGIN:g} points', unadjusted; 'equivalent' by its "
        "Holm p.",
        "Undecided: with the seeds named, a difference is either found or equivalent, whatever it is, if the spread is not above "
        "its 80 % upper bound. "
        f"With these seeds and that spread, power .8 at alpha / 4 takes a difference, in points, of: {found or 'none'}.",
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
    Column("t_p", "p (t)", "p"),
    Column("sign_flip_p", "p (sign flip)", "p"),
    Column("wilcoxon_p", "p (Wilcoxon)", "p"),
    Column("tost_p", "p (TOST)", "p"),
    Column("g_z", "g_z", "effect"),
    Column("iqm", "IQM, points", "gain"),
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
            *_p_values(row),
            Interval(*row.effect, row.test.mean.n),
            iqm(row.values) if len(row.values) > 3 else math.nan,
            improvement(row.values),
        )
        for row in found
    ]
    return Sheet("effects", "What each component does", COLUMNS, tuple(body), tuple(notes)) if body else None


def _p_values(row: Row) -> list[float]:
    if math.isnan(row.holm_p):
        return [math.nan] * 5
    return [row.holm_p, row.test.t_p, row.test.sign_flip_p, row.test.wilcoxon_p, row.tost_p]
