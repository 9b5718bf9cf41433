"""The factorial side by side: what each component does on average, alone, in RRPO, and what of RRPO's gain is its own.

Under interaction a main effect, the effect beside no other component and the effect at the RRPO corner part; Shapley values share
interactions out and add up to RRPO - DiffRO. `oracle` (the best reward model there could be) sets the scale: the share of the
oracle - DiffRO gap that is closed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from ablations.contrasts import (
    BASE,
    COMPONENTS,
    NAMES,
    WHOLE,
    apply,
    arm_of,
    corner_effect,
    difference,
    factorial_effect,
)
from ablations.contrasts import shapley as shapley_value
from ablations.inference import ratio_of_means
from ablations.records import Record
from ablations.sheet import Column, Sheet, Value
from ablations.statistics import Interval, t_interval
from ablations.summary import gold_gains

ORACLE = "oracle"
NOTE = (
    "Gold gain at matched KL, in points, within each seed: mean ± half the 95 % t-interval; descriptive, the tests are in the "
    "table of effects. Main effect: over the four settings of the other components; an interaction's is its contrast. Alone: "
    "added to DiffRO. At the corner: RRPO less RRPO without it. Shapley values are exact and add up to RRPO - DiffRO."
)
GAP = "Gap closed: share of oracle - DiffRO, a ratio of means with Fieller's 95 % interval; none where the gap may be zero."


def sheet(records: Sequence[Record]) -> Sheet | None:
    """Components, interactions and their sum, one a row; None unless a seed has the whole factorial."""
    gains, _ = gold_gains(records)
    seeds = sorted({record.seed for record in records})

    def contrast(weights: Mapping[str, float]) -> np.ndarray:
        return apply(weights, gains, seeds)

    if not np.isfinite(contrast(factorial_effect(COMPONENTS))).any():
        return None
    framed = any(record.label == ORACLE for record in records)

    def row(name: str, *weights: Mapping[str, float] | None) -> tuple[Value, ...]:
        values = [np.empty(0) if w is None else contrast(w) for w in weights]
        closed = [gap_closed(values[-1], gains, seeds)] if framed else []
        return (name, *map(t_interval, values), *closed)

    rows = [
        row(
            NAMES[part],
            factorial_effect([part]),
            difference(arm_of([part]), BASE),
            corner_effect(part),
            shapley_value(part),
        )
        for part in COMPONENTS
    ]
    for size in (2, 3):
        rows += [
            row(" x ".join(NAMES[p] for p in on), factorial_effect(on), None, None, None)
            for on in combinations(COMPONENTS, size)
        ]
    rows.append(row("RRPO - DiffRO", None, None, None, difference(WHOLE, BASE)))
    columns = (
        Column("component", "component"),
        Column("main_effect", "main effect or interaction", "gain"),
        Column("alone", "alone, on DiffRO", "gain"),
        Column("corner", "at the RRPO corner", "gain"),
        Column("shapley", "Shapley value", "gain"),
        *([Column("closed", "gap closed, %", "share")] if framed else []),
    )
    return Sheet("factorial", "Factorial and Shapley", columns, tuple(rows), (NOTE, *([GAP] if framed else [])))


def gap_closed(values: np.ndarray, outcomes: Mapping[tuple[str, int], float], seeds: Sequence[int]) -> Interval:
    """The share of the oracle - DiffRO gap that per-seed ``values [len(seeds)]`` make up; n = 0 without values."""
    if not len(values):
        return t_interval([])
    return ratio_of_means(values, apply(difference(ORACLE, BASE), outcomes, seeds))
