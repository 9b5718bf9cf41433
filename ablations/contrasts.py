"""Contrasts of the 2^3 factorial of LS, EAM and Adv within each seed, and the attribution of RRPO's gain to its components.

An arm is the set of components that are on. A contrast maps arms to weights; applied to a seed's values it gives one number a
seed, so that pairing is exact and every test is a test of one sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

COMPONENTS = ("ls", "eam", "adv")
"""In the order of the arms' names."""
NAMES = {"ls": "LS", "eam": "EAM", "adv": "Adv"}
"""For people."""
BASE, WHOLE = "diffro", "rrpo"
"""No component, and all of them."""


def arm_of(parts: Sequence[str]) -> str:
    """The arm with exactly these components: ``diffro``, ``ls``, ..., ``ls_eam``, ..., ``rrpo``."""
    chosen = [name for name in COMPONENTS if name in parts]
    return BASE if not chosen else WHOLE if len(chosen) == len(COMPONENTS) else "_".join(chosen)


def subsets() -> list[tuple[str, ...]]:
    """All eight sets of components, by size."""
    return [chosen for size in range(len(COMPONENTS) + 1) for chosen in combinations(COMPONENTS, size)]


def factorial_effect(parts: Sequence[str]) -> dict[str, float]:
    """Main effect (one part) or interaction (more) by arm: the weights of the 2^k design, in units of the outcome.

    A main effect is the mean over the other components' four settings of 'with' minus 'without'; an interaction of two is
    half the difference between the effect of one with and without the other; of three, a quarter accordingly.
    """
    if not parts or any(part not in COMPONENTS for part in parts):
        raise ValueError(f"name components among {COMPONENTS}, got {tuple(parts)}")
    scale = 2 / 2 ** len(COMPONENTS)
    return {arm_of(on): scale * math.prod(1 if part in on else -1 for part in parts) for on in subsets()}


def corner_effect(part: str) -> dict[str, float]:
    """What dropping ``part`` from RRPO costs: RRPO minus RRPO without it."""
    return {WHOLE: 1.0, arm_of([name for name in COMPONENTS if name != part]): -1.0}


def difference(treated: str, control: str) -> dict[str, float]:
    """One arm minus another."""
    return {treated: 1.0, control: -1.0}


def shapley(part: str) -> dict[str, float]:
    """Exact Shapley value of a component in the gain of RRPO over DiffRO; those of all components add up to it."""
    k = len(COMPONENTS)
    weights: dict[str, float] = {}
    for on in subsets():
        if part in on:
            continue
        weight = math.factorial(len(on)) * math.factorial(k - len(on) - 1) / math.factorial(k)
        for arm, sign in ((arm_of([*on, part]), 1), (arm_of(on), -1)):
            weights[arm] = weights.get(arm, 0.0) + sign * weight
    return weights


def apply(
    weights: Mapping[str, float], outcomes: Mapping[tuple[str, int], float], seeds: Sequence[int]
) -> NDArray[np.float64]:
    """The contrast of every seed ``[len(seeds)]`` of ``outcomes`` by (arm, seed); NaN where an arm of it is missing."""
    rows = [[outcomes.get((arm, seed), math.nan) for arm in weights] for seed in seeds]
    found: NDArray[np.float64] = np.array(rows, float).reshape(len(seeds), len(weights)) @ np.array(
        list(weights.values())
    )
    return found


PRIMARY: dict[str, dict[str, float]] = {
    "LS, main effect": factorial_effect(["ls"]),
    "EAM, main effect": factorial_effect(["eam"]),
    "Adv, main effect": factorial_effect(["adv"]),
    "RRPO - DiffRO": difference(WHOLE, BASE),
}
"""The primary family, declared once: tested on gold gain at matched KL by paired t, Holm over the four."""
