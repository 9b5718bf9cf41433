"""What each component does to the primary outcome: within-seed contrasts, tested at the planned number of seeds only.

Primary family (declared in `ablations.contrasts.PRIMARY`): three main effects and RRPO - DiffRO on gold gain at matched KL,
paired t on seeds, Holm over the four. Everything else here is secondary: interval and effect size, no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablations.contrasts import COMPONENTS, NAMES, PRIMARY, apply, corner_effect, difference, factorial_effect, shapley
from ablations.inference import EXACT, Effect, PairedTest, effect_size, equivalence, holm, improvement, iqm, paired_test
from ablations.power import alpha_at, detectable, seeds_to_decide, spread_bound
from ablations.records import Record
from ablations.sheet import Column, Sheet
from ablations.statistics import Interval
from ablations.summary import gold_gains
from reports import manipulation

MARGIN = 0.03
"""Three points: smaller differences count as none (declared in the design, before any result)."""
OTHER_JUDGES = ("val_accuracy", "third_accuracy")
"""Judges beside `test`, where they were asked at every checkpoint: better or worse takes that all agree on the sign."""
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
    gold, _ = gold_gains(records)
    judges = [gold_gains(records, judge)[0] for judge in OTHER_JUDGES]
    there = {record.label for record in records} | {arm for arm, _ in diverged}
    wanted = {name: w for name, w in (PRIMARY | SECONDARY).items() if set(w) <= there}
    values = {name: _finite(apply(weights, gold, seeds)) for name, weights in wanted.items()}
    values = {name: x for name, x in values.items() if len(x)}
    family = {name: x for name, x in values.items() if name in PRIMARY}
    if not family:
        return [], []
    gaps = {name: sum(any((arm, s) in diverged for arm in wanted[name]) for s in seeds) for name in family}
    settled = len(family) == len(PRIMARY) and all(len(x) + gaps[name] == len(seeds) for name, x in family.items())
    n = len(seeds) if settled else min(map(len, family.values()))
    declared = settled and n in looks and min(map(len, family.values())) > 1
    alpha = alpha_at(n, looks) if declared else math.nan
    tests = {name: paired_test(x) for name, x in values.items()}
    checks = {f"{NAMES[part]}, main effect": manipulation.check(records, part) for part in COMPONENTS}
    adjusted = holm({name: tests[name].t_p for name in family}) if declared else {}
    tost = {name: equivalence(x, MARGIN) for name, x in family.items()} if declared else {}
    found = []
    for name, x in values.items():
        p, verdict = adjusted.get(name, math.nan), "interim" if name in family else "secondary, not tested"
        if name in adjusted:
            opposed = any(_opposed(x, _finite(apply(wanted[name], judge, seeds))) for judge in judges)
            verdict = _verdict(x, p, holm(tost)[name], alpha, opposed)
            if name in checks and checks[name].failed:
                verdict = "not tested (manipulation check failed)"
        found.append(
            Row(name, name in family, tuple(x), tests[name], effect_size(x), p, tost.get(name, math.nan), verdict)
        )
    notes = _notes(n, looks, ahead, alpha, [name for name in PRIMARY if name not in family], family)
    if declared and any(gaps.values()):
        notes.append(f"Seeds left out, since a cell diverged: {', '.join(f'{k} {v}' for k, v in gaps.items() if v)}.")
    return found, notes + manipulation.note(list(checks.values()))


def _finite(x: np.ndarray) -> np.ndarray:
    return x[np.isfinite(x)]


def _opposed(gold: np.ndarray, val: np.ndarray) -> bool:
    """Whether the two judges disagree on the sign of the mean."""
    return len(val) > 0 and float(np.sign(gold.mean()) * np.sign(val.mean())) < 0


def _verdict(x: np.ndarray, p: float, tost: float, alpha: float, opposed: bool) -> str:
    if math.isnan(p):
        return "not tested (no spread over seeds)"
    if p < alpha:
        if opposed:
            return "no verdict (judges disagree on the sign)"
        return ("better" if x.mean() > 0 else "worse") + (" (by less than 3 points)" if tost < alpha else "")
    if tost < alpha:
        return "equivalent"
    enough = seeds_to_decide(spread_bound(x), MARGIN, alpha / len(PRIMARY))
    return f"undecided ({enough} seeds would decide)" if enough else "undecided (not even 1,000 seeds would decide)"


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
