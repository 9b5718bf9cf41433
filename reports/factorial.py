"""Table of the components' effects: averaged over the factorial, alone, and within RRPO.

If components interact, a component's main effect, its effect alone and its effect within RRPO differ. The arm `oracle`, with
the best possible reward model, sets the scale: the share of the gap oracle - DiffRO that is closed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ablations.components import COMPONENTS
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.stats.contrasts import (
    Values,
    Weights,
    apply,
    corner_effects,
    difference,
    effects_alone,
    interactions,
    main_effects,
    overall,
)
from ablations.stats.family import primary
from ablations.stats.inference import ratio_of_means
from ablations.stats.statistics import Interval, t_interval
from ablations.tracking.records import Record
from rrpo.arms import BASE

ORACLE = "oracle"
NOTE = (
    "within each seed: mean ± half the 95 % t-interval; descriptive (the tests are in the first table). Main effect: "
    "average over all settings of the other components; for an interaction, its contrast. Alone: DiffRO with the "
    "component minus DiffRO. Within RRPO: RRPO minus RRPO without the component; for a component that is not the "
    "paper's, RRPO with it minus RRPO."
)
GAP = "Gap closed: share of oracle - DiffRO, a ratio of means with Fieller's 95 % interval; no value if the gap may be zero."


def sheet(records: Sequence[Record]) -> Sheet | None:
    """Return one row per component, interaction and RRPO - DiffRO; None if no seed has the complete factorial."""
    outcome = primary()
    values = outcome.values(records)
    seeds = sorted({record.seed for record in records})
    effects = [*zip(main_effects().values(), effects_alone().values(), corner_effects().values(), strict=True)]
    if not effects or not np.isfinite(apply(effects[0][0], values, seeds)).any():
        return None
    framed = any(record.label == ORACLE for record in records)

    def row(name: str, *weights: Weights) -> tuple[Value, ...]:
        found = [apply(w, values, seeds) for w in weights]
        means = [t_interval(x) for x in found] + [t_interval([])] * (3 - len(found))
        return (name, *means, *([gap_closed(found[0], values, seeds)] if framed else []))

    rows = [row(component.label, *own) for component, own in zip(COMPONENTS, effects, strict=True)]
    rows += [row(name, weights) for name, weights in (interactions() | overall()).items()]
    columns = (
        Column("component", "component"),
        Column("effect", "main effect, interaction or difference", outcome.difference_unit),
        Column("alone", "alone, on DiffRO", outcome.difference_unit),
        Column("corner", "in RRPO", outcome.difference_unit),
        *([Column("closed", "gap closed, %", "share")] if framed else []),
    )
    notes = (f"{outcome.title}, {NOTE}", *([GAP] if framed else []))
    return Sheet("factorial", "Factorial", columns, tuple(rows), notes)


def gap_closed(values: np.ndarray, outcomes: Values, seeds: Sequence[int]) -> Interval:
    """Return the share of the gap oracle - DiffRO closed by the differences ``values [len(seeds)]``; n = 0 if empty."""
    if not len(values):
        return t_interval([])
    return ratio_of_means(values, apply(difference(ORACLE, BASE), outcomes, seeds))
