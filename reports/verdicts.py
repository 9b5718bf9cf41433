"""Verdicts: which contrasts are tested and what their intervals say, by one rule for a grid and for each of its settings.

A contrast is tested once each of its cells is settled, complete or diverged, in every planned seed. Its paired t interval holds
simultaneously over the m contrasts that the grid's arms allow: where it excludes 0, better or worse; where it lies within the
margin, equivalent; else undecided. Another judge takes better or worse away only where its own interval, at the same level, lies
wholly on the other side.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ablations.judges import Judge, vetoing
from ablations.outcomes import accuracy
from ablations.stats.contrasts import Values, apply
from ablations.stats.family import ALPHA, DIVERGED, MARGIN, POWER, margin_text, primary
from ablations.stats.inference import varies
from ablations.stats.power import seeds_needed, spread_bound
from ablations.stats.statistics import Interval, t_interval
from ablations.tracking.records import Record
from reports.loading import Selection

BETTER, WORSE, EQUIVALENT, UNDECIDED = "better", "worse", "equivalent", "undecided"
INTERIM = "interim"
SMALL = f" (by less than {margin_text()})"
"""What a verdict adds where a difference is found and lies within the margin."""
NOT_MOVED = "not tested (manipulation check failed)"
Contrasts = Mapping[str, Mapping[str, float]]
"""Name -> weights by label."""


class Judged(NamedTuple):
    """One contrast of a tested family."""

    values: tuple[float, ...]
    """The primary outcome's, one a seed that has all its arms."""
    interval: Interval
    """Of their mean, simultaneous over the family."""
    verdict: str
    """In words."""


def word(said: str) -> str:
    """A verdict without its bracket: ``better``, ``worse``, ``equivalent``, ``undecided``, or that there is none."""
    return said.partition(" (")[0]


def simultaneous(contrasts: Contrasts) -> float:
    """The level at which the intervals of these contrasts hold together."""
    return 1 - ALPHA / max(1, len(contrasts))


def judge(
    selection: Selection,
    records: Sequence[Record],
    contrasts: Contrasts,
    failed: Collection[str],
    score: float = DIVERGED,
) -> dict[str, Judged]:
    """The verdicts on one family of ``contrasts``, by the labels of ``records``.

    ``failed`` names the contrasts of components that did not move their own target in the reward model; ``score`` is the primary
    outcome of a diverged cell, NaN to leave its seed out.
    """
    outcomes = scored(primary().values(records), selection, score)
    others = [scored(heard(one, records), selection, score) for one in vetoing()]
    level = simultaneous(contrasts)
    seeds = selection.seeds({label for weights in contrasts.values() for label in weights})
    found = {}
    for name, weights in contrasts.items():
        x, *vetoes = (_finite(apply(weights, values, seeds)) for values in (outcomes, *others))
        said = INTERIM
        if selection.planned_n == len(seeds) > 1 and settled(weights, outcomes, selection, seeds):
            opposed = [t_interval(other, level) for other in vetoes]
            said = NOT_MOVED if name in failed else verdict(x, level, opposed)
        found[name] = Judged(tuple(x), t_interval(x, level), said)
    return found


def scored(outcomes: Values, selection: Selection, score: float) -> Values:
    """The primary outcome of every cell that ended, ``score`` for a diverged one."""
    return {**outcomes, **dict.fromkeys(selection.diverged, score)}


def heard(one: Judge, records: Sequence[Record]) -> Values:
    """The primary outcome by another judge; where it was asked of no stored sample, its accuracy; empty for neither."""
    by = primary().by
    for outcome in (by(one), accuracy(one)) if by else ():
        values = outcome.values(records)
        if any(math.isfinite(value) for value in values.values()):
            return values
    return {}


def settled(weights: Mapping[str, float], outcomes: Values, selection: Selection, seeds: Sequence[int]) -> bool:
    """Whether every cell of a contrast is there, measured or diverged, in every seed."""
    cells = {(label, seed) for label in weights for seed in seeds}
    return all(cell in selection.diverged or math.isfinite(outcomes.get(cell, math.nan)) for cell in cells)


def _finite(x: np.ndarray) -> np.ndarray:
    return x[np.isfinite(x)]


def verdict(x: np.ndarray, level: float, others: Sequence[Interval] = ()) -> str:
    """What the interval of differences ``x [n]`` says; ``others``: the same contrast by judges with a veto, at that level."""
    if len(x) < 2 or not varies(x):
        return "not tested (no spread over seeds)"
    mean = t_interval(x, level)
    within = mean.low > -MARGIN and mean.high < MARGIN
    if mean.low > 0 or mean.high < 0:
        if any(other.high < 0 if mean.low > 0 else other.low > 0 for other in others):
            return "no verdict (another judge sees the opposite)"
        improved = mean.mean * (primary().direction or 1) > 0
        return (BETTER if improved else WORSE) + (SMALL if within else "")
    if within:
        return EQUIVALENT
    needed = seeds_needed(MARGIN, spread_bound(float(x.std(ddof=1)), len(x)), 1 - level, POWER)
    return f"{UNDECIDED} ({needed} seeds for power {POWER:g})" if needed else f"{UNDECIDED} (not even 1,000 seeds)"
