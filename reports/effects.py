"""What each component does to the primary outcome: within-seed contrasts, tested at the planned number of seeds only.

Primary family (declared in `ablations.contrasts.PRIMARY`): three main effects and RRPO - DiffRO on gold gain at matched KL,
paired t on seeds, Holm over the four. Everything else here is secondary: interval and effect size, no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ablations.contrasts import COMPONENTS, PRIMARY, apply, corner_effect, difference, factorial_effect, shapley
from ablations.inference import (
    Effect,
    PairedTest,
    effect_size,
    equivalence,
    holm,
    improvement,
    paired_test,
    seeds_needed,
    spent_alpha,
    spread_bound,
)
from ablations.records import Record
from ablations.sheet import Column, Sheet
from ablations.statistics import Interval, t_interval
from ablations.summary import gold_gains

MARGIN = 0.03
"""Three points: smaller differences count as none (declared in the design, before any result)."""
MANIPULATION = {"ls": ("rm_ece", -1), "eam": ("rm_smoothness", +1), "adv": ("rm_pgd_accuracy_0.1", +1)}
"""What each component has to move in the reward model, and which way: one that did not has not been tested."""
NAMES = {"ls": "LS", "eam": "EAM", "adv": "Adv"}
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


def rows(records: Sequence[Record], looks: Sequence[int]) -> tuple[list[Row], list[str]]:
    """All contrasts of a grid's records, and notes. ``looks`` are the planned numbers of seeds, rising.

    Tests appear when the seeds of every primary contrast number exactly a declared look; otherwise the table is interim.
    """
    seeds = sorted({record.seed for record in records})
    gold, _ = gold_gains(records)
    val, _ = gold_gains(records, "val_accuracy")
    there = {record.label for record in records}
    wanted = {name: w for name, w in (PRIMARY | SECONDARY).items() if set(w) <= there}
    values = {name: _finite(apply(weights, gold, seeds)) for name, weights in wanted.items()}
    values = {name: x for name, x in values.items() if len(x)}
    family = {name: x for name, x in values.items() if name in PRIMARY}
    if not family:
        return [], []
    n = min(map(len, family.values()))
    declared = len(family) == len(PRIMARY) and n in looks and n > 1 and n == max(map(len, family.values()))
    alpha = spent_alpha(list(looks))[list(looks).index(n)] if declared else math.nan
    tests = {name: paired_test(x) for name, x in values.items()}
    checks = {f"{NAMES[part]}, main effect": manipulation(records, part) for part in COMPONENTS}
    adjusted = holm({name: tests[name].t_p for name in family}) if declared else {}
    found = []
    for name, x in values.items():
        opposed = name in family and _opposed(x, _finite(apply(wanted[name], val, seeds)))
        tost = equivalence(x, MARGIN) if name in adjusted else math.nan
        p = adjusted.get(name, math.nan)
        verdict = _verdict(x, p, tost, alpha, opposed) if name in adjusted else "interim" if name in family else ""
        if name in adjusted and failed(checks.get(name)):
            verdict = "not tested (manipulation check failed)"
        found.append(Row(name, name in family, tuple(x), tests[name], effect_size(x), p, tost, verdict))
    notes = _notes(n, looks, alpha, [name for name in PRIMARY if name not in family])
    return found, notes + _manipulation_note(checks)


def manipulation(records: Sequence[Record], part: str) -> tuple[Interval, int]:
    """Main effect of a component on what it has to move in the reward model, over seeds; and the sign that is wanted."""
    name, sign = MANIPULATION[part]
    outcomes = {(r.label, r.seed): r.scalars[name] for r in records if name in r.scalars}
    seeds = sorted({record.seed for record in records})
    return t_interval(apply(factorial_effect([part]), outcomes, seeds)), sign


def failed(check: tuple[Interval, int] | None) -> bool:
    """Whether a manipulation was measured and its interval does not lie on the wanted side of zero."""
    if check is None or check[0].n < 2:
        return False
    interval, sign = check
    return not (interval.low > 0 if sign > 0 else interval.high < 0)


def _manipulation_note(checks: dict[str, tuple[Interval, int]]) -> list[str]:
    said = [
        f"{name.split(',')[0]} on {MANIPULATION[part][0]} {check[0].mean:+.3f}"
        + ("" if check[0].n < 2 else f" [{check[0].low:+.3f}, {check[0].high:+.3f}]")
        + (" FAILED" if failed(check) else "")
        for part, (name, check) in zip(COMPONENTS, checks.items(), strict=True)
        if check[0].n
    ]
    return [f"Manipulation checks, main effects in the reward model: {'; '.join(said)}."] if said else []


def _finite(x: np.ndarray) -> np.ndarray:
    return x[np.isfinite(x)]


def _opposed(gold: np.ndarray, val: np.ndarray) -> bool:
    """Whether the two judges disagree on the sign of the mean."""
    return len(val) > 0 and float(np.sign(gold.mean()) * np.sign(val.mean())) < 0


def _verdict(x: np.ndarray, p: float, tost: float, alpha: float, opposed: bool) -> str:
    if p < alpha:
        if opposed:
            return "no verdict: the judges disagree on the sign"
        return "better" if x.mean() > 0 else "worse"
    if tost < alpha:
        return "equivalent"
    enough = seeds_needed(MARGIN, spread_bound(x), alpha / len(PRIMARY))
    return (
        f"undecided: {enough} seeds would decide" if enough else "undecided: no feasible number of seeds would decide"
    )


def _notes(n: int, looks: Sequence[int], alpha: float, absent: Sequence[str]) -> list[str]:
    lines = [
        "Contrasts of gold gain at matched KL, in points, within each seed; mean ± half the 95 % t-interval. Primary family: the "
        "three main effects and RRPO - DiffRO; the others are secondary and not tested.",
        "g_z: mean over standard deviation of the seeds' differences, Hedges-corrected, with its 95 % interval. Improved: share "
        "of seeds above zero.",
    ]
    if math.isnan(alpha):
        planned = ", ".join(map(str, looks)) or "none declared"
        whole = f" with the whole family; not there: {', '.join(absent)}" if absent else ""
        return [
            *lines,
            f"Interim, n = {n}: estimates only. Tests appear at the planned number of seeds ({planned}){whole}.",
        ]
    spending = "" if len(looks) == 1 else f"; looks at n = {', '.join(map(str, looks))}, O'Brien-Fleming spending"
    return [
        *lines,
        f"Paired t on n = {n} seeds, Holm over four, alpha = {alpha:.4f}{spending}. Beside it: exact sign-flip permutation "
        f"(smallest possible p {2 / 2**n:.4f}) and exact Wilcoxon, both unadjusted. TOST: p of 'over ±{100 * MARGIN:g} points'.",
        "Undecided: the seeds that would detect 3 points with power .8, from the 80 % upper bound of the spread.",
    ]


COLUMNS = (
    Column("contrast", "contrast"),
    Column("family", "family"),
    Column("points", "points", "gain"),
    Column("g_z", "g_z", "effect"),
    Column("improved", "improved, %", "share"),
    Column("t_p", "p (t)", "p"),
    Column("holm_p", "p (t, Holm)", "p"),
    Column("sign_flip_p", "p (sign flip)", "p"),
    Column("wilcoxon_p", "p (Wilcoxon)", "p"),
    Column("tost_p", "p (TOST)", "p"),
    Column("verdict", "verdict"),
)


def sheet(found: Sequence[Row], notes: Sequence[str]) -> Sheet | None:
    """The contrasts as a table; p values only where they were declared; None without rows."""
    body = [
        (
            row.name,
            "primary" if row.primary else "secondary",
            row.test.mean,
            Interval(*row.effect, row.test.mean.n),
            improvement(row.values),
            *_p_values(row),
            row.verdict or "not tested",
        )
        for row in found
    ]
    return Sheet("effects", "What each component does", COLUMNS, tuple(body), tuple(notes)) if body else None


def _p_values(row: Row) -> list[float]:
    if math.isnan(row.holm_p):
        return [math.nan] * 5
    return [row.test.t_p, row.holm_p, row.test.sign_flip_p, row.test.wilcoxon_p, row.tost_p]
