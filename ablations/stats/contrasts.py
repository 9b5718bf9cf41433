"""Contrasts of the 2^k factorial of the components within each seed.

An arm is the set of components that are on. A contrast maps arms to weights; applied to a seed's values it gives one number a
seed, so that pairing is exact and every test is a test of one sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ablations.components import COMPONENTS, Component, subsets
from rrpo.arms import BASE, RRPO, name_of, papers

Weights = dict[str, float]
"""Arm -> weight."""
Values = Mapping[tuple[str, int], float]
"""An outcome by (arm, seed)."""
OVERALL = "RRPO - DiffRO"
"""Name of the contrast of all the paper's components with none."""
SFT = "sft"
"""The arm that is not optimised."""
ABOVE_SFT = "RRPO - SFT"
"""Name of the contrast that tells whether RRPO stops hacking or reduces it."""


def factorial_effect(parts: Sequence[str]) -> Weights:
    """Main effect (one part) or interaction (more) by arm: the weights of the 2^k design, in units of the outcome.

    A main effect is the mean over all settings of the other components of 'with' minus 'without'; an interaction of two is
    half the difference between the effect of one with and without the other; of three, a quarter accordingly.
    """
    names = [component.name for component in COMPONENTS]
    if not parts or any(part not in names for part in parts):
        raise ValueError(f"name components among {', '.join(names)}, got {tuple(parts)}")
    scale = 2 / 2 ** len(names)
    return {name_of(on): scale * math.prod(1 if part in on else -1 for part in parts) for on in subsets()}


def corner_effect(part: str) -> Weights:
    """``part`` within RRPO: RRPO minus RRPO without it, or, for one that is not the paper's, RRPO with it minus RRPO."""
    whole = set(papers())
    return {name_of(whole | {part}): 1.0, name_of(whole - {part}): -1.0}


def difference(treated: str, control: str) -> Weights:
    """One arm minus another."""
    return {treated: 1.0, control: -1.0}


def main_effects() -> dict[str, Weights]:
    """Every component's main effect, by name."""
    return {f"{c.label}, main effect": factorial_effect([c.name]) for c in COMPONENTS}


def corner_effects() -> dict[str, Weights]:
    """Every component's effect within RRPO, by name."""
    return {f"{c.label}, in RRPO": corner_effect(c.name) for c in COMPONENTS}


def effects_alone() -> dict[str, Weights]:
    """Every component's effect beside no other, by name."""
    return {f"{c.label}, added to DiffRO": difference(name_of([c.name]), BASE) for c in COMPONENTS}


def interactions() -> dict[str, Weights]:
    """The interactions of every order, by name."""
    label = {component.name: component.label for component in COMPONENTS}
    return {" x ".join(label[p] for p in parts): factorial_effect(parts) for parts in subsets() if len(parts) > 1}


def overall() -> dict[str, Weights]:
    """RRPO - DiffRO."""
    return {OVERALL: difference(RRPO, BASE)}


def component_of(contrast: str) -> Component | None:
    """The one component whose effect a contrast of the functions above is, by its name; None for interactions and others."""
    return next((c for c in COMPONENTS if contrast.startswith(f"{c.label},")), None)


def apply(weights: Mapping[str, float], outcomes: Values, seeds: Sequence[int]) -> NDArray[np.float64]:
    """The contrast of every seed ``[len(seeds)]`` of ``outcomes`` by (arm, seed); NaN where an arm of it is missing."""
    rows = [[outcomes.get((arm, seed), math.nan) for arm in weights] for seed in seeds]
    found: NDArray[np.float64] = np.array(rows, float).reshape(len(seeds), len(weights)) @ np.array(
        list(weights.values())
    )
    return found
