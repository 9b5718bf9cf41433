"""Tables of contrasts: within-seed effects of the components on the primary outcome and on all others.

The tested family, the primary outcome and the decision rule are declared in `ablations.stats.family`; `reports.verdicts`
applies them. All other contrasts are secondary: an interval and an effect size, without a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ablations.components import COMPONENTS
from ablations.grids import ALTERNATIVES
from ablations.judges import gold
from ablations.outcomes import UNIT_WORDS, Outcome, clean_at_any_length, clean_success, ends, find, shown
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.rendering.summary import ARM, N, over_seeds, seeds_of
from ablations.stats.contrasts import ABOVE_SFT, SFT, Values, Weights, apply, corner_effect, difference, interactions
from ablations.stats.family import ALPHA, BESIDE, DIVERGED, POWER, PRIMARY_OUTCOME, margin_text, primary
from ablations.stats.inference import correlation, improvement, ratio_of_means
from ablations.stats.power import detectable, spread_bound
from ablations.stats.statistics import Interval, in_points, t_interval
from ablations.tracking.records import Record
from reports import manipulation
from reports.loading import Selection
from reports.verdicts import CONTRAST, INTERIM, VERDICT, Row, judge, scored, simultaneous
from rrpo.arms import BASE, RRPO, name_of

SECONDARY = "secondary, not tested"
BESIDE_IT = {ABOVE_SFT: "beside it"}
"""Contrast outside the primary family that has a verdict -> how its place is named."""
ORACLE = "oracle"
"""Arm with the best possible reward model, which sets the scale."""
GAP = "Gap closed: share of oracle - DiffRO, a ratio of means with Fieller's 95 % interval; no value if the gap may be zero."
OWN_RM = (
    "Against SFT, proxy accuracy and hacked share are compared with the SFT policy under the arm's own reward model, at "
    "its first checkpoint and on the prompts that all checkpoints have; between two arms, they include the difference of their "
    "reward models before any optimization."
)
ENDS = ("hacked_share", "uptake")
"""Outcomes shown in the ablation table in addition to its measure."""


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

    Grids of settings have no plain arms and hence no rows here, and in a screen nothing is tested. ``score`` is the primary
    outcome of a diverged cell; NaN excludes its seed.
    """
    if selection.screen:
        return []
    records, family = selection.records, selection.family
    failed = [name for name, check in manipulation.checks(records, family).items() if check.failed]
    computed = judge(selection, records, family, failed, score)
    if family:
        computed += judge(selection, records, above_sft(), score=score, family=family)
    outcomes = scored(primary().values(records), selection, score)
    for name, weights in (secondary() if family else secondary() | above_sft()).items():
        x = [value for value in apply(weights, outcomes, selection.tested_seeds) if math.isfinite(value)]
        computed.append(Row(name, False, tuple(x), t_interval(x), SECONDARY))
    return [row for row in computed if row.values]


def estimates(
    selection: Selection,
    contrasts: Mapping[str, Weights],
    outcomes: Iterable[Outcome],
    seeds: Sequence[int],
    score: float = DIVERGED,
) -> dict[str, dict[Column, Interval]]:
    """Return contrast -> column of an outcome -> its mean difference, paired within seeds, with a 95 % interval.

    ``score`` is the primary outcome of a diverged cell, which has no other outcome; NaN excludes its seed.
    """
    outcomes = list(outcomes)
    values = {outcome.name: outcome.values(selection.records) for outcome in outcomes}
    if (name := primary().name) in values:
        values[name] = scored(values[name], selection, score)
    by_own_rm = [
        outcome for outcome in outcomes if outcome.own_rm and any(SFT in weights for weights in contrasts.values())
    ]
    rises = {outcome.name: _rises(outcome, selection.records) for outcome in by_own_rm}

    def estimate(weights: Weights, outcome: Outcome) -> Interval:
        by_cell = rises[outcome.name] if outcome.own_rm and SFT in weights else values[outcome.name]
        return t_interval(apply(weights, by_cell, seeds))

    return {
        name: {difference_column(outcome): estimate(weights, outcome) for outcome in outcomes}
        for name, weights in contrasts.items()
    }


def _rises(outcome: Outcome, records: Iterable[Record]) -> Values:
    """Return each cell's change since its first checkpoint, which is the SFT policy under the same reward model; 0 for SFT."""
    changes = {}
    for record in records:
        start, end = ends(outcome, record)
        changes[record.label, record.seed] = 0.0 if record.label == SFT else end - start
    return changes


def differences(
    selection: Selection, pairs: Sequence[tuple[str, str]], *names: str, score: float = DIVERGED
) -> dict[tuple[str, str], dict[Column, Interval]]:
    """Return pair of arms -> `estimates` of the first minus the second, where they share seeds with the primary outcome."""
    contrasts = {f"{one} - {other}": difference(one, other) for one, other in pairs}
    by_name = estimates(selection, contrasts, [primary(), *map(find, names)], selection.seeds(()), score)
    by_pair = dict(zip(pairs, by_name.values(), strict=True))
    return {pair: means for pair, means in by_pair.items() if of_primary(means).n}


def first_sheet(selection: Selection, rows: Sequence[Row]) -> Sheet | None:
    """Return the first table of a report, except of a screen: the family and RRPO - SFT, in the primary outcome and `BESIDE`;
    None if empty."""
    family = selection.family
    beside = estimates(selection, family | above_sft(), map(find, BESIDE), selection.tested_seeds)
    body: list[dict[Column, Value]] = [
        {
            CONTRAST: row.name,
            N: seeds_of([row.interval, *beside[row.name].values()]),
            difference_column(primary()): row.interval,
            VERDICT: row.verdict,
            **beside[row.name],
        }
        for row in rows
        if row.name in beside
    ]
    tested = (
        f"Differences within seeds at the last update, mean ± half the interval. {primary().title}: paired "
        f"t-intervals, simultaneous over {len(family)} contrasts ({100 * simultaneous(family):.4g} %). An interval "
        f"that excludes 0: the arms differ; within ±{margin_text()}: equivalent; otherwise undecided, with the number "
        f"of seeds needed to detect {margin_text()} with power {POWER:g} (at the 80 % upper bound of the standard "
        f"deviation). {ABOVE_SFT} is not one of these contrasts, and has an interval of the same level. No verdict is given "
        f"if {primary().label} by another judge has an interval, at the same level, entirely on the opposite side of 0. "
        "All other columns: 95 % intervals, estimates only."
    )
    untested = "Differences within seeds at the last update, mean ± half the 95 % t-interval. These arms allow no test."
    notes = (
        tested if family else untested,
        *(manipulation.unchecked(manipulation.checks(selection.records, family)) if selection.planned_n > 1 else []),
        *_sft_notes(selection),
        primary().note,
    )
    return Sheet.of("components", "What each component does", body, *notes)


def _sft_notes(selection: Selection) -> list[str]:
    """Return how the row RRPO - SFT is to be read; empty without such a row."""
    if primary().name != clean_success(gold()).name:
        return []
    outcome, family = clean_at_any_length(), selection.family
    values = scored(outcome.values(selection.records), selection, DIVERGED)
    x = t_interval(apply(above_sft()[ABOVE_SFT], values, selection.tested_seeds), simultaneous(family))
    if not x.n:
        return []
    return [f"{ABOVE_SFT}: {outcome.note}; without this rule, the difference is {in_points(x)} points. {OWN_RM}"]


def sheet(selection: Selection, rows: Sequence[Row]) -> Sheet | None:
    """Return a table of all contrasts of the primary outcome, with effect sizes; None if there are none."""
    family = selection.family
    places = BESIDE_IT if family else {}
    body: list[dict[Column, Value]] = [
        {
            CONTRAST: row.name,
            N: float(len(row.values)),
            Column("family", "family"): "primary" if row.primary else places.get(row.name, "secondary"),
            Column("points", "points", "gain"): row.interval,
            VERDICT: row.verdict,
            Column("improved", "improved, %", "share"): improvement(row.values),
        }
        for row in rows
    ]
    smallest = {row.name: _detectable(row.values, len(family)) for row in rows if row.primary}
    listed = "; ".join(f"{name} {100 * value:.1f}" for name, value in smallest.items() if math.isfinite(value))
    note = (
        f"Detectable with power {POWER:g} (these seeds, upper bound of their standard deviation), in points: {listed}."
    )
    levels = (
        f"simultaneous over the primary family ({'; '.join(family)}), at the same level for {ABOVE_SFT}, which decides "
        "between 'stops' and 'reduces', and 95 % for the other contrasts, which are not tested."
    )
    notes = [
        f"Contrasts of {primary().label}, in points, within each seed; mean ± half the interval. Intervals are "
        f"{levels if family else '95 %; nothing is tested.'}",
        "Improved: share of seeds with a difference above zero; ties count half.",
        *([note] if listed else []),
        *(_interim(selection) if any(row.verdict == INTERIM for row in rows if row.primary) else []),
    ]
    return Sheet.of("effects", "Contrasts", body, *notes)


def _detectable(values: Sequence[float], m: int) -> float:
    """Return the difference that this many seeds detect, at the upper bound of their standard deviation; NaN below two
    seeds."""
    n = len(values)
    return detectable(spread_bound(float(np.std(values, ddof=1)), n), n, ALPHA / m, POWER) if n > 1 else math.nan


def _interim(selection: Selection) -> list[str]:
    available = {record.label for record in selection.records} | {arm for arm, _ in selection.diverged}
    missing = [name for name, weights in selection.family.items() if not set(weights) <= available]
    suffix = f" Missing: {'; '.join(missing)}." if missing else ""
    planned = (
        f"the {selection.planned_n} planned seeds" if selection.planned_n else "all planned seeds (none is planned)"
    )
    if selection.planned_n == 1:
        planned = "all planned seeds, of which a test requires two (one is planned)"
    return [f"Interim: a contrast is tested once its cells are complete in {planned}.{suffix}"]


def ablation(selection: Selection, metric: str = PRIMARY_OUTCOME) -> Sheet | None:
    """Return each component added to DiffRO and removed from RRPO (or added, if it is not the paper's); None if there is no
    such pair."""
    records = selection.records
    outcome, has_oracle = find(metric), bool(selection.of(ORACLE))
    ends = [find(name) for name in ENDS if name != metric]
    corners = {c: next(arm for arm in corner_effect(c.name) if arm != RRPO) for c in COMPONENTS}
    variants = [  # name, arm, the arm that it is compared with
        ("DiffRO", BASE, ""),
        *((f"DiffRO + {c.label}", name_of([c.name]), BASE) for c in COMPONENTS),
        ("RRPO", RRPO, ""),
        *((f"RRPO {'without' if c.paper else 'with'} {c.label}", arm, RRPO) for c, arm in corners.items()),
    ]
    seeds = selection.tested_seeds
    values = outcome.values(records)
    if outcome.name == primary().name:
        values = scored(values, selection, DIVERGED)
    gap = apply(difference(ORACLE, BASE), values, seeds)
    rows: list[dict[Column, Value]] = []
    for name, arm, reference in variants:
        cells = selection.tested_of(arm)
        pair = [[values.get((a, seed), math.nan) for seed in seeds] for a in (arm, reference)]
        own = t_interval(pair[0])
        if not own.n:
            continue
        closed = ratio_of_means(apply(difference(arm, BASE if arm != BASE else ""), values, seeds), gap)
        change = t_interval(apply(difference(arm, reference), values, seeds))
        rows.append(
            {
                Column("variant", "variant"): name,
                ARM: arm,
                N: float(own.n),
                replace(outcome.as_column(), better=0): own,
                Column(
                    "difference",
                    f"difference from DiffRO or RRPO{UNIT_WORDS.get(outcome.difference_unit, '')}",
                    outcome.difference_unit,
                ): change,
                Column("r", "r of pairs", "effect"): correlation(*pair),
                **({Column("closed", "gap closed, %", "share"): closed} if has_oracle else {}),
                **{replace(end.as_column(), better=0): over_seeds(end, cells) for end in ends},
            }
        )
    if len(rows) < 2:
        return None
    tests = "nothing is tested" if selection.screen else "descriptive (the tests are in the first table)"
    notes = (
        f"Paired differences within seeds with 95 % t-intervals; {tests}. "
        "Variants of DiffRO are compared with DiffRO, those of RRPO with RRPO. r: correlation of the paired seeds, from three "
        "seeds on.",
        *([GAP] if has_oracle else []),
    )
    return Sheet.of("ablation", "Components one by one", rows, *notes)


def outcomes_sheet(selection: Selection) -> Sheet | None:
    """Return the contrasts of the first table in every outcome; None if none can be computed."""
    outcomes, available = shown(selection.records), {record.label for record in selection.records}
    contrasts = selection.family | above_sft()
    contrasts = {name: weights for name, weights in contrasts.items() if set(weights) <= available}
    by_contrast = estimates(selection, contrasts, outcomes, selection.tested_seeds)
    tested = "" if selection.screen else f" (the primary outcome, {primary().label}, is tested in the first table)"
    note = (
        "Paired differences within seeds in every outcome, mean ± half the 95 % t-interval. Estimates, not tested"
        f"{tested}. {OWN_RM}"
    )
    rows: list[dict[Column, Value]] = [
        {CONTRAST: name, N: seeds_of(means.values()), **means}
        for name, means in by_contrast.items()
        if any(map(_measured, means.values()))
    ]
    return Sheet.of("outcomes", "Every outcome", rows, note) if rows else None


def _measured(mean: Interval) -> bool:
    return mean.n > 0


def of_primary(means: Mapping[Column, Interval]) -> Interval:
    """Return the difference in the primary outcome, from those of all outcomes."""
    return means[difference_column(primary())]


def difference_column(outcome: Outcome) -> Column:
    """Return the column of differences of an outcome."""
    points = ", points" if outcome.difference_unit == "gain" else ""
    return Column(outcome.name, f"{outcome.label}{points}", outcome.difference_unit)
