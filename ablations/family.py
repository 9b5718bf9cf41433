"""What is tested: primary outcome, primary family of contrasts and margin of equivalence, declared here and nowhere else."""

from __future__ import annotations

from ablations.contrasts import Weights, main_effects, overall
from ablations.outcomes import Outcome, find

PRIMARY_OUTCOME = "gold_gain"
"""Name of the outcome that is tested; all others are estimates."""
MARGIN = 0.03
"""Smaller differences of the primary outcome count as none (declared in the design, before any result)."""


def primary() -> Outcome:
    """The primary outcome."""
    return find(PRIMARY_OUTCOME)


def family() -> dict[str, Weights]:
    """The primary family by name: tested together on the primary outcome, by paired t with Holm's correction."""
    return main_effects() | overall()


def family_text() -> str:
    """The family in words."""
    return "; ".join(family())


def margin_text() -> str:
    """The margin in words."""
    return f"{100 * MARGIN:g} points"
