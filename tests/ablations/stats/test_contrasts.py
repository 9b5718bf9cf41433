"""Factorial contrasts and effects within RRPO on tables with known effects."""

import math

import numpy as np
import pytest

from ablations.components import factorial, subsets
from ablations.grids import arms
from ablations.stats.contrasts import apply, corner_effect, factorial_effect
from rrpo.arms import name_of

EFFECTS = {(): 10.0, ("ls",): 1.0, ("eam",): 2.0, ("adv",): -3.0, ("ls", "adv"): 4.0, ("ls", "eam", "adv"): 6.0}
"""Gain of each set of components, added whenever all of its components are on."""


def outcomes(seed: int = 1) -> dict[tuple[str, int], float]:
    return {(name_of(on), seed): sum(v for parts, v in EFFECTS.items() if set(parts) <= set(on)) for on in subsets()}


def test_arms_of_the_factorial_are_the_grids():
    assert {name_of(on) for on in subsets()} == set(factorial())
    for on in subsets():
        regularizers = arms()[name_of(on)].regularizers
        assert (regularizers.epsilon > 0, regularizers.mix_probability > 0, regularizers.alpha > 0) == tuple(
            p in on for p in ("ls", "eam", "adv")
        )


def test_main_effects_and_interactions_by_hand():
    """LS adds 1 alone, 4 more with Adv (in half of the settings), 6 more with both others (in a quarter): 1 + 2 + 1.5."""
    by_hand = {("ls",): 4.5, ("eam",): 2 + 1.5, ("adv",): -3 + 2 + 1.5, ("ls", "adv"): 2 + 1.5, ("ls", "eam"): 1.5}
    for parts, value in by_hand.items():
        assert apply(factorial_effect(parts), outcomes(), [1])[0] == pytest.approx(value)
    assert apply(factorial_effect(["ls", "eam", "adv"]), outcomes(), [1])[0] == pytest.approx(1.5)
    with pytest.raises(ValueError, match="name components"):
        factorial_effect(["lr"])


def test_the_effect_within_rrpo_parts_from_the_main_effect_under_interaction():
    assert apply(corner_effect("ls"), outcomes(), [1])[0] == pytest.approx(1 + 4 + 6)


def test_a_missing_arm_makes_the_seed_missing():
    table = outcomes(1) | outcomes(2)
    del table["ls", 2]
    effects = apply(factorial_effect(["ls"]), table, [1, 2])
    assert effects[0] == pytest.approx(4.5)
    assert math.isnan(effects[1])


def test_effects_are_the_coefficients_of_a_least_squares_fit():
    """Independent computation: regress on -1/+1 codes and their products; an effect is twice its coefficient."""
    rng = np.random.default_rng(0)
    table = {(name_of(on), 1): float(rng.normal()) for on in subsets()}
    parts = [chosen for chosen in subsets() if chosen]
    codes = {on: {part: 1.0 if part in on else -1.0 for part in ("ls", "eam", "adv")} for on in subsets()}
    design = [[1.0, *(math.prod(codes[on][part] for part in chosen) for chosen in parts)] for on in subsets()]
    beta, *_ = np.linalg.lstsq(np.array(design), np.array([table[name_of(on), 1] for on in subsets()]), rcond=None)
    for chosen, coefficient in zip(parts, beta[1:], strict=True):
        assert apply(factorial_effect(chosen), table, [1])[0] == pytest.approx(2 * coefficient), chosen
