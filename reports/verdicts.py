"""When a family of contrasts is tested, and what its tests say: one rule for a grid and for each setting of one.

A family is tested at a declared number of seeds, once every contrast of it is settled in every seed; paired t on seeds, Holm over
the family; better or worse only where no judge sees the other sign; equivalent by TOST, Holm too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ablations.contrasts import apply
from ablations.family import MARGIN, margin_text, primary
from ablations.family import family as declared
from ablations.inference import equivalence, holm, paired_test
from ablations.judges import gold, vetoing
from ablations.power import seeds_to_decide, spread_bound
from ablations.records import Record

SMALL = f" (by less than {margin_text()})"
"""What a verdict adds where a difference is found and lies within the margin."""
Contrasts = Mapping[str, Mapping[str, float]]
"""Name -> weights by label."""


class Judged(NamedTuple):
    """One contrast of a tested family."""

    holm_p: float
    """Paired t, adjusted over the family."""
    tost_p: float
    """'Beyond the margin', unadjusted."""
    verdict: str
    """In words."""


def by_judge(records: Sequence[Record], contrasts: Contrasts, seeds: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """Each contrast of the primary outcome by the gold judge, then by those with a veto: the seeds where all its arms are."""
    by = primary().by
    outcomes = [by(judge) for judge in (gold(), *vetoing())] if by else [primary()]
    return [
        {name: _finite(apply(weights, values, seeds)) for name, weights in contrasts.items()}
        for values in (outcome.values(records) for outcome in outcomes)
    ]


def lacking(weights: Mapping[str, float], seeds: Sequence[int], diverged: Collection[tuple[str, int]]) -> int:
    """Seeds in which a cell of the contrast diverged: settled, without a value."""
    return sum(any((label, seed) in diverged for label in weights) for seed in seeds)


def settled(
    values: Mapping[str, np.ndarray],
    contrasts: Contrasts,
    seeds: Sequence[int],
    diverged: Collection[tuple[str, int]],
) -> bool:
    """Whether every one of ``values`` is there in every seed, complete or diverged; not where there are none."""
    gaps = {name: lacking(contrasts[name], seeds, diverged) for name in values}
    return bool(values) and all(len(x) + gaps[name] == len(seeds) for name, x in values.items())


def judge(
    family: Mapping[str, np.ndarray], others: Sequence[Mapping[str, np.ndarray]], failed: Collection[str], alpha: float
) -> dict[str, Judged]:
    """The verdicts of a family at a look that may use ``alpha``; ``others`` hold the same contrasts by the other judges.

    ``failed`` names the contrasts of components that did not move their own target in the reward model.
    """
    p = holm({name: paired_test(x).t_p for name, x in family.items()})
    tost = {name: equivalence(x, MARGIN) for name, x in family.items()}
    adjusted = holm(tost)
    found = {}
    for name, x in family.items():
        opposed = any(_opposed(x, by[name]) for by in others)
        said = _verdict(x, p[name], adjusted[name], alpha, opposed)
        found[name] = Judged(p[name], tost[name], "not tested (manipulation check failed)" if name in failed else said)
    return found


def _finite(x: np.ndarray) -> np.ndarray:
    return x[np.isfinite(x)]


def _opposed(gold: np.ndarray, other: np.ndarray) -> bool:
    """Whether two judges disagree on the sign of the mean."""
    return len(other) > 0 and float(np.sign(gold.mean()) * np.sign(other.mean())) < 0


def _verdict(x: np.ndarray, p: float, tost: float, alpha: float, opposed: bool) -> str:
    if math.isnan(p):
        return "not tested (no spread over seeds)"
    if p < alpha:
        if opposed:
            return "no verdict (judges disagree on the sign)"
        improved = x.mean() * (primary().direction or 1) > 0
        return ("better" if improved else "worse") + (SMALL if tost < alpha else "")
    if tost < alpha:
        return "equivalent"
    enough = seeds_to_decide(spread_bound(x), MARGIN, alpha / len(declared()))
    return f"undecided ({enough} seeds would decide)" if enough else "undecided (not even 1,000 seeds would decide)"
