"""Table of uptake of the planted shortcut, as a difference in differences over its strengths.

Planted effect: an arm's shortcut uptake with the shortcut in its reward model's pre-training data minus its uptake without,
within each seed. The difference in differences subtracts DiffRO's planted effect from an arm's. Below zero, the arm's component
keeps the policy from the shortcut; anything else that the arm does to uptake (more artefacts of all kinds, for example)
cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ablations.grids import split_label
from ablations.outcomes import find
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.stats.contrasts import Values, apply
from ablations.stats.statistics import Interval, t_interval
from ablations.tracking.records import Record
from reports.settings import SHORTCUT, Level, Setting, settings, varied
from rrpo.arms import BASE


def sheet(records: Sequence[Record]) -> Sheet | None:
    """Return one row per arm and combination of the other factors; None unless DiffRO was run with and without the shortcut."""
    found = settings(records)
    if SHORTCUT not in varied(found):
        return None
    strengths = sorted({float(setting.levels[SHORTCUT]) for setting in found})
    if strengths[0] != 0:
        return None
    outcomes = find("uptake").values(records)
    contexts: dict[tuple[Level, ...], dict[float, Setting]] = {}
    for setting in found:
        context = tuple(level for factor, level in setting.levels.items() if factor != SHORTCUT)
        contexts.setdefault(context, {})[float(setting.levels[SHORTCUT])] = setting
    whole = [here for here in contexts.values() if len(here) == len(strengths) and BASE in here[strengths[0]].arms]
    others = [factor for factor in varied([s for here in whole for s in here.values()]) if factor != SHORTCUT]
    rows: list[tuple[Value, ...]] = []
    for here in whole:
        levels = [here[strengths[0]].levels[factor] for factor in others]
        rows += [(arm, *levels, *_row(arm, here, strengths, outcomes)) for arm in _arms(here)]
    if not rows:
        return None
    arms = {arm for setting in found for arm in setting.arms}
    dropped = len(arms) * len(contexts) - len(rows)
    none, *planted = strengths
    columns = (
        Column("arm", "arm"),
        *(Column(factor.replace(" ", "_"), factor, "level") for factor in others),
        Column("n", "n", "count"),
        *(Column(f"uptake_{s:g}", f"uptake at {s:g}, points", "gain") for s in strengths),
        *(Column(f"planted_{s:g}", f"{s:g} - {none:g}", "gain") for s in planted),
        *(Column(f"did_{s:g}", f"{s:g} - {none:g}, minus DiffRO's", "gain") for s in planted),
        Column("words", f"at {strengths[-1]:g} (other arms: compared with DiffRO)"),
    )
    notes = (
        "Shortcut uptake: share of samples with emotion e's artefact if the target is e, minus this share if the "
        "target is another emotion, at the last checkpoint, by the strength of the shortcut planted in the RM's "
        "pre-training data; mean over seeds ± half the 95 % t-interval.",
        *([f"Not shown: {dropped} arms or settings without all strengths, or without DiffRO."] if dropped else []),
        f"Columns with '- {none:g}': effect of planting the shortcut, within each seed. 'Minus DiffRO's': difference "
        "in differences; below zero, the component keeps the policy from the shortcut. Secondary, not tested; the "
        "words in the last column follow the unadjusted interval.",
    )
    return Sheet("uptake", "Shortcut uptake", columns, tuple(rows), notes)


def _arms(here: dict[float, Setting]) -> list[str]:
    """Return the arms that were run at every strength, DiffRO first."""
    first = next(iter(here.values()))
    order = dict.fromkeys(split_label(record.label)[0] for record in first.records)
    shared = set.intersection(*(setting.arms for setting in here.values()))
    return sorted((arm for arm in order if arm in shared), key=lambda arm: arm != BASE)


def _row(arm: str, here: dict[float, Setting], strengths: Sequence[float], outcomes: Values) -> list[Value]:
    labels = [label for s in strengths for label in here[s].weights({arm: 1.0, BASE: 1.0})]
    seeds = sorted({seed for _, seed in outcomes if all((label, seed) in outcomes for label in labels)})
    none, *planted = strengths

    def at(name: str, strength: float, sign: float = 1.0) -> dict[str, float]:
        return here[strength].weights({name: sign})

    def mean(weights: dict[str, float]) -> Interval:
        return t_interval(apply(weights, outcomes, seeds))

    alone = [mean(at(arm, s)) for s in strengths]
    first = [mean(at(arm, s) | at(arm, none, -1)) for s in planted]
    second = [mean(at(arm, s) | at(arm, none, -1) | at(BASE, s, -1) | at(BASE, none)) for s in planted]
    if arm == BASE:
        second = [t_interval([]) for _ in planted]
    last = first[-1] if arm == BASE else second[-1]
    return [float(first[-1].n), *alone, *first, *second, _words(last, arm)]


def _words(mean: Interval, arm: str) -> str:
    """Return what the interval says, in words."""
    up, down = ("takes it up", "avoids it") if arm == BASE else ("takes up more", "takes up less")
    if math.isnan(mean.low):
        return "one seed says nothing" if mean.n else "not measured"
    return up if mean.low > 0 else down if mean.high < 0 else "not shown"
