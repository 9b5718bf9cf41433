"""Verdicts: decide which contrasts are tested, and what their intervals say. The same rule applies to a grid and to each of its
settings.

A contrast is tested once all its cells in all planned seeds are finished, either complete or diverged. Its paired t-interval is
simultaneous over the m contrasts that the grid's arms allow. If it excludes 0, the verdict is *better* or *worse*; if it lies
within the margin, *equivalent*; otherwise *undecided*. Another judge can only withhold *better* or *worse*, namely if the
interval of the primary outcome by that judge, at the same level, lies entirely on the opposite side of 0. If a component's
manipulation check failed, *equivalent* and *undecided* become *not tested*, because a component that did nothing to its reward
model says nothing by having no effect; a difference that is found stays one, and the failed check is stated.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablations.grids import split_label
from ablations.judges import Judge, vetoing
from ablations.rendering.sheet import Column
from ablations.stats.contrasts import Values, apply
from ablations.stats.family import ALPHA, DIVERGED, MARGIN, POWER, margin_text, primary
from ablations.stats.inference import varies
from ablations.stats.power import seeds_needed, spread_bound
from ablations.stats.statistics import Interval, t_interval
from ablations.tracking.records import Record
from reports.loading import Selection

BETTER, WORSE, EQUIVALENT, UNDECIDED = "better", "worse", "equivalent", "undecided"
INTERIM, NO_VERDICT = "interim", "no verdict"
SMALL = f" (by less than {margin_text()})"
"""Added to a verdict if a difference is found and lies within the margin."""
CONTRAST, VERDICT = Column("contrast", "contrast"), Column("verdict", "verdict")
CHECK_FAILED = " (manipulation check failed)"
"""Added to a verdict other than *equivalent* or *undecided* if the component is not shown to have changed its target."""
NOT_MOVED = f"not tested{CHECK_FAILED}"
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
    """Verdict in words; on RRPO - SFT too, which is not part of the family and decides between "stops" and "reduces"."""

    @property
    def word(self) -> str:
        """The verdict without its parentheses: ``better``, ``worse``, ``equivalent``, ``undecided``, or why there is none."""
        return word_of(self.verdict)

    @property
    def unchecked(self) -> bool:
        """Whether a difference was found although the component's manipulation check failed."""
        return self.word in (BETTER, WORSE) and self.verdict.endswith(CHECK_FAILED)


def word_of(verdict: str) -> str:
    """Return a verdict without its parentheses."""
    return verdict.partition(" (")[0]


def simultaneous(contrasts: Collection[str]) -> float:
    """Return the level of each interval at which all of them hold simultaneously (Bonferroni)."""
    return 1 - ALPHA / max(1, len(contrasts))


def judge(
    selection: Selection,
    records: Sequence[Record],
    contrasts: Contrasts,
    failed: Collection[str] = (),
    score: float = DIVERGED,
    *,
    family: Contrasts | None = None,
) -> list[Row]:
    """Return the verdicts on ``contrasts``, given by labels of ``records``.

    ``failed`` contains the contrasts of components whose manipulation check failed. ``score`` is the primary outcome of a
    diverged cell; NaN excludes its seed. ``family`` determines level and seeds; by default, the contrasts are a family.
    """
    outcomes = scored(primary().values(records), selection, score)
    other_outcomes = [scored(by_judge(other_judge, records), selection, score) for other_judge in vetoing()]
    tested = contrasts if family is None else family
    level = simultaneous(tested)
    labels = {label for weights in tested.values() for label in weights}
    seeds = selection.seeds(labels)
    planned = {selection.planned_in(split_label(label)[1]) for label in labels}
    rows = []
    for name, weights in contrasts.items():
        differences = (apply(weights, values, seeds) for values in (outcomes, *other_outcomes))
        x, *veto_values = (values[np.isfinite(values)] for values in differences)
        decision = INTERIM
        if planned == {len(seeds)} and len(seeds) > 1 and settled(weights, outcomes, selection, seeds):
            veto_intervals = [t_interval(values, level) for values in veto_values]
            decision = with_check(verdict(x, level, veto_intervals), failed=name in failed)
        rows.append(Row(name, family is None, tuple(x), t_interval(x, level), decision))
    return rows


def with_check(decision: str, *, failed: bool) -> str:
    """Return a verdict on a component, given whether its manipulation check failed."""
    if not failed:
        return decision
    return NOT_MOVED if word_of(decision) in (EQUIVALENT, UNDECIDED) else f"{decision}{CHECK_FAILED}"


def scored(outcomes: Values, selection: Selection, score: float) -> Values:
    """Return the primary outcome of every finished cell, which is ``score`` for a diverged one."""
    return {**outcomes, **dict.fromkeys(selection.diverged, score)}


def without_diverged(selection: Selection, answer: str) -> str:
    """Return how diverged cells are counted, followed by the answer that excludes them."""
    return f"Diverged cells ({len(selection.diverged)}) count as {primary().label} {DIVERGED:g}; without them: {answer}"


def by_judge(judge: Judge, records: Sequence[Record]) -> Values:
    """Return the primary outcome by another judge, on the samples that it evaluated; empty if no outcome depends on a judge."""
    by = primary().by
    return by(judge).values(records) if by else {}


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
            return f"{NO_VERDICT} (another judge sees the opposite)"
        improved = mean.mean * (primary().direction or 1) > 0
        return (BETTER if improved else WORSE) + (SMALL if within else "")
    if within:
        return EQUIVALENT
    needed = seeds_needed(MARGIN, spread_bound(float(x.std(ddof=1)), len(x)), 1 - level, POWER)
    if not needed:
        return f"{UNDECIDED} (more than 1,000 seeds)"
    if needed <= len(x):
        return f"{UNDECIDED} (power {POWER:g} or more)"
    return f"{UNDECIDED} ({needed} seeds for power {POWER:g})"
