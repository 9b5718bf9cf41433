"""Contrasts of the 2^k factorial of the components, computed within each seed.

An arm is the set of components that are on. A contrast maps arms to weights; applied to a seed's outcomes, it gives one number
per seed. Pairing by seed is therefore exact, and every test is a one-sample test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ablations.components import COMPONENTS, Component, subsets
from rrpo.arms import BASE, RRPO, name_of, paper_regularizers

Weights = dict[str, float]
"""Arm -> weight."""
Values = Mapping[tuple[str, int], float]
"""An outcome by (arm, seed)."""
OVERALL = "RRPO - DiffRO"
"""Name of the contrast between all of the paper's components and none."""
SFT = "sft"
"""The arm without policy optimization."""
ABOVE_SFT = "RRPO - SFT"
"""Name of the contrast that decides whether RRPO stops hacking or only reduces it."""


def factorial_effect(parts: Sequence[str]) -> Weights:
    """Return the weights, by arm, of a main effect (one part) or interaction (several) in the 2^k design, in the outcome's units.

    A main effect is the difference 'with' minus 'without' the component, averaged over all settings of the other components. An
    interaction of two is half the difference between the effect of one with and without the other; an interaction of three is a
    quarter of the corresponding difference.

    Raises:
        ValueError: ``parts`` is empty or contains an unknown component.
    """
    names = [component.name for component in COMPONENTS]
    if not parts or any(part not in names for part in parts):
        raise ValueError(f"name components among {', '.join(names)}, got {tuple(parts)}")
    scale = 2 / 2 ** len(names)
    return {name_of(on): scale * math.prod(1 if part in on else -1 for part in parts) for on in subsets()}


def corner_effect(part: str) -> Weights:
    """Return the weights of the effect of ``part`` within RRPO.

    For a component of the paper: RRPO minus RRPO without it. For another component: RRPO with it minus RRPO.
    """
    rrpo = set(paper_regularizers())
    return {name_of(rrpo | {part}): 1.0, name_of(rrpo - {part}): -1.0}


def difference(treated: str, control: str) -> Weights:
    """Return the weights of one arm minus another."""
    return {treated: 1.0, control: -1.0}


def main_effects() -> dict[str, Weights]:
    """Return the main effect of each component, by name."""
    return {f"{component.label}, main effect": factorial_effect([component.name]) for component in COMPONENTS}


def corner_effects() -> dict[str, Weights]:
    """Return the effect of each component within RRPO, by name."""
    return {f"{component.label}, in RRPO": corner_effect(component.name) for component in COMPONENTS}


def effects_alone() -> dict[str, Weights]:
    """Return the effect of each component added to DiffRO, without the other components, by name."""
    return {
        f"{component.label}, added to DiffRO": difference(name_of([component.name]), BASE) for component in COMPONENTS
    }


def interactions() -> dict[str, Weights]:
    """Return the interactions of all orders, by name."""
    label = {component.name: component.label for component in COMPONENTS}
    return {" x ".join(label[part] for part in parts): factorial_effect(parts) for parts in subsets() if len(parts) > 1}


def overall() -> dict[str, Weights]:
    """Return the contrast RRPO - DiffRO, by name."""
    return {OVERALL: difference(RRPO, BASE)}


def component_of(contrast: str) -> Component | None:
    """Return the component whose effect the named contrast measures; None for interactions and other contrasts."""
    return next((component for component in COMPONENTS if contrast.startswith(f"{component.label},")), None)


def apply(weights: Mapping[str, float], outcomes: Values, seeds: Sequence[int]) -> NDArray[np.float64]:
    """Return the contrast of each seed ``[len(seeds)]``; NaN for a seed that lacks an arm of the contrast."""
    rows = [[outcomes.get((arm, seed), math.nan) for arm in weights] for seed in seeds]
    effects: NDArray[np.float64] = np.array(rows, float).reshape(len(seeds), len(weights)) @ np.array(
        list(weights.values())
    )
    return effects
