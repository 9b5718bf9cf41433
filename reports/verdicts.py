"""Verdicts: decide which contrasts are tested, and what their intervals say. The same rule applies to a grid and to each of its
settings.

A contrast is tested once all its cells in all planned seeds are finished, either complete or diverged. Its paired t-interval is
simultaneous over the m contrasts that the grid's arms allow. If it excludes 0, the verdict is *better* or *worse*; if it lies
within the margin, *equivalent*; otherwise *undecided*. Another judge can only withhold *better* or *worse*, namely if its own
interval at the same level lies entirely on the opposite side of 0.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablations.judges import Judge, vetoing
from ablations.outcomes import accuracy
from ablations.rendering.sheet import Column
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
"""Added to a verdict if a difference is found and lies within the margin."""
CONTRAST, VERDICT = Column("contrast", "contrast"), Column("verdict", "verdict")
NOT_MOVED = "not tested (manipulation check failed)"
Contrasts = Mapping[str, Mapping[str, float]]
"""Name -> weights by label."""


@dataclass(frozen=True)
class Row:
    """One contrast over seeds."""

    name: str
    """Name of the contrast."""
    primary: bool
    """Whether the contrast belongs to the tested family."""
    values: tuple[float, ...]
    """One difference in the primary outcome per seed that has all arms of the contrast."""
    interval: Interval
    """Interval of the mean difference: simultaneous for the family and for RRPO - SFT, otherwise 95 %."""
    verdict: str
    """Verdict in words."""

    @property
    def word(self) -> str:
        """The verdict without its parentheses: ``better``, ``worse``, ``equivalent``, ``undecided``, or why there is none."""
        return self.verdict.partition(" (")[0]


def simultaneous(contrasts: Contrasts) -> float:
    """Return the level of each interval at which all of them hold simultaneously (Bonferroni)."""
    return 1 - ALPHA / max(1, len(contrasts))


def judge(
    selection: Selection,
    records: Sequence[Record],
    contrasts: Contrasts,
    failed: Collection[str],
    score: float = DIVERGED,
) -> list[Row]:
    """Return the verdicts on one family of ``contrasts``, given by labels of ``records``.

    ``failed`` contains the contrasts of components whose manipulation check failed. ``score`` is the primary outcome of a
    diverged cell; NaN excludes its seed.
    """
    outcomes = scored(primary().values(records), selection, score)
    other_outcomes = [scored(by_judge(other_judge, records), selection, score) for other_judge in vetoing()]
    level = simultaneous(contrasts)
    seeds = selection.seeds({label for weights in contrasts.values() for label in weights})
    rows = []
    for name, weights in contrasts.items():
        differences = (apply(weights, values, seeds) for values in (outcomes, *other_outcomes))
        x, *veto_values = (values[np.isfinite(values)] for values in differences)
        decision = INTERIM
        if selection.planned_n == len(seeds) > 1 and settled(weights, outcomes, selection, seeds):
            veto_intervals = [t_interval(values, level) for values in veto_values]
            decision = NOT_MOVED if name in failed else verdict(x, level, veto_intervals)
        rows.append(Row(name, True, tuple(x), t_interval(x, level), decision))
    return rows


def scored(outcomes: Values, selection: Selection, score: float) -> Values:
    """Return the primary outcome of every finished cell, which is ``score`` for a diverged one."""
    return {**outcomes, **dict.fromkeys(selection.diverged, score)}


def by_judge(judge: Judge, records: Sequence[Record]) -> Values:
    """Return the primary outcome by another judge; its accuracy if it evaluated no stored sample; empty if there is neither."""
    by = primary().by
    for outcome in (by(judge), accuracy(judge)) if by else ():
        values = outcome.values(records)
        if any(math.isfinite(value) for value in values.values()):
            return values
    return {}


def settled(weights: Mapping[str, float], outcomes: Values, selection: Selection, seeds: Sequence[int]) -> bool:
    """Return whether every cell of a contrast is finished, measured or diverged, in every seed."""
    cells = {(label, seed) for label in weights for seed in seeds}
    return all(cell in selection.diverged or math.isfinite(outcomes.get(cell, math.nan)) for cell in cells)


def verdict(x: np.ndarray, level: float, others: Sequence[Interval] = ()) -> str:
    """Return what the interval of differences ``x [n]`` says. ``others``: intervals of the same contrast by judges with a
    veto."""
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
