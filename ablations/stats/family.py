"""What is tested: primary outcome, primary family of contrasts, margin, level and pilot, declared here and nowhere else.

One rule for difference and equivalence. A contrast of the seeds' outcomes has a paired t interval that holds simultaneously over
the m contrasts tested with it, at 1 - `ALPHA` / m: where it excludes 0 the arms differ; where it lies wholly within +-`MARGIN`
they are equivalent; else nothing is decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ablations.grids import split_label
from ablations.outcomes import Outcome, find
from ablations.stats.contrasts import Weights, component_of, corner_effects, effects_alone, main_effects, overall

PRIMARY_OUTCOME = "clean_success"
"""Name of the outcome that is tested, at the last update; all others are estimates."""
BESIDE = ("hacked_share", "gold", "phone_error_rate", "artefacts")
"""Outcomes that stand beside it in the first table of a report."""
MARGIN = 0.05
"""Smaller differences of the primary outcome count as none (declared in the design, before any result)."""
ALPHA = 0.05
"""Chance of any false claim over a family."""
POWER = 0.8
"""Power at which the number of seeds and the detectable difference are given."""
DIVERGED = 0.0
"""Primary outcome of a cell whose optimisation left the finite numbers."""
COLLAPSED = 1 / 3
"""A cell *collapsed* where its primary outcome is below this share of the SFT policy's of its seed."""
KL_POINTS = (0.1, 0.2, 0.4, 0.8, 1.6)
"""KL to the SFT policy, nats a token, at which secondary outcomes are read as well."""


COMPONENTS = ("data", "reward model", "optimisation")
"""What a seed redraws, outermost first: the components of the spread over seeds."""


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """What was measured on development seeds to choose the number of seeds; the spread alone is used.

    ``python -m ablations.pilot`` measures it.
    """

    spread: float
    """Standard deviation over seeds of RRPO - DiffRO in the primary outcome."""
    seeds: int
    """Development seeds it was measured on."""
    world: str
    """Hash of the world."""
    components: Mapping[str, float] = field(default_factory=dict)
    """By `COMPONENTS`, the standard deviation that redrawing it alone makes, of a replicated pilot; empty without one."""

    @property
    def parts(self) -> str:
        """The components in words, by their share of the variance; empty where they were not measured."""
        whole = sum(sd**2 for sd in self.components.values())
        if not whole:
            return ""
        shares = ", ".join(
            f"{name} {100 * sd**2 / whole:.0f} % ({100 * sd:.1f} points)" for name, sd in self.components.items()
        )
        return f"of the variance over seeds, roughly (a nested pilot): {shares}"


PILOT: Pilot | None = None
"""The pilot of the current world and regime; None until one is committed."""


def primary() -> Outcome:
    """The primary outcome."""
    return find(PRIMARY_OUTCOME)


def family() -> dict[str, Weights]:
    """The primary family by name: of k components main effects, effects within RRPO, and RRPO - DiffRO, 2 k + 1 contrasts."""
    return main_effects() | corner_effects() | overall()


def allowed(arms: Iterable[str]) -> dict[str, Weights]:
    """The part of the family that these arms allow.

    Where that speaks about no single component, the components' effects when added to DiffRO stand in.
    """
    there = set(arms)
    found = {name: weights for name, weights in family().items() if set(weights) <= there}
    if any(component_of(name) for name in found):
        return found
    return {name: weights for name, weights in effects_alone().items() if set(weights) <= there} | found


def declared(labels: Iterable[str]) -> dict[str, dict[str, Weights]]:
    """Setting -> the contrasts tested in it, of arms without their setting; plain arms are the setting ``""``.

    All settings of a grid have the same family: what the arms that they share allow.
    """
    arms: dict[str, set[str]] = {}
    for label in labels:
        arm, place = split_label(label)
        arms.setdefault(place, set()).add(arm)
    placed = [there for place, there in arms.items() if place]
    shared = allowed(set.intersection(*placed)) if placed else {}
    return {place: shared if place else allowed(there) for place, there in arms.items()}


def margin_text() -> str:
    """The margin in words."""
    return f"{100 * MARGIN:g} points"
