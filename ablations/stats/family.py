"""The declared tests: primary outcome, primary family of contrasts, equivalence margin, level and pilot.

One rule decides about difference and equivalence. Each contrast has a paired t interval at level 1 - `ALPHA` / m, simultaneous
over the m contrasts tested together. If the interval excludes 0, the arms differ; if it lies entirely within +-`MARGIN`, they are
equivalent; otherwise the contrast is undecided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ablations.grids import join_label, split_label
from ablations.outcomes import Outcome, find
from ablations.stats.contrasts import Weights, component_of, corner_effects, effects_alone, main_effects, overall

PRIMARY_OUTCOME = "clean_success"
"""Name of the tested outcome, at the last update; all other outcomes are estimates."""
BESIDE = ("hacked_share", "gold", "phone_error_rate", "artefacts")
"""Secondary outcomes in the first table of a report."""
MARGIN = 0.05
"""Equivalence margin of the primary outcome (declared in the design, before any result)."""
ALPHA = 0.05
"""Family-wise error rate."""
POWER = 0.8
"""Power for which required seeds and detectable differences are reported."""
DIVERGED = 0.0
"""Primary outcome assigned to a cell whose optimization became non-finite."""
COLLAPSED = 1 / 3
"""A cell has *collapsed* if its primary outcome is below this fraction of the SFT policy's on the same seed."""
KL_POINTS = (0.1, 0.2, 0.4, 0.8, 1.6)
"""KL to the SFT policy, nats per token, at which secondary outcomes are also reported."""


COMPONENTS = ("data", "reward model", "optimization")
"""What a seed redraws, outermost first: the variance components of the spread over seeds."""


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """The spread measured on development seeds, used to choose the number of reported seeds.

    ``python -m ablations.pilot`` measures it.
    """

    spread: float
    """Standard deviation over seeds of RRPO - DiffRO in the primary outcome."""
    seeds: int
    """Number of development seeds."""
    world: str
    """Hash of the world."""
    components: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Name in `COMPONENTS` -> standard deviation due to redrawing it alone and its 80 % upper bound, from a replicated pilot;
    empty without one."""

    @property
    def parts(self) -> str:
        """A sentence on the spread due to each component; empty if it was not measured."""
        if not self.components:
            return ""
        spreads = ", ".join(
            f"{name} {100 * sd:.1f} (80 % upper bound {100 * bound:.1f})"
            for name, (sd, bound) in self.components.items()
        )
        return (
            f"standard deviations due to redrawing one thing alone, in points: {spreads}; from few draws, so rough (a variance "
            "estimated below 0 counts as 0; the bounds are conservative; optimization includes the evaluation's sampling noise)"
        )


PILOT: Pilot | None = Pilot(
    spread=0.0632,
    seeds=8,
    world="ab0020a40db8d81a",
    components={"data": (0.0415, 0.0992), "reward model": (0.0516, 0.0876), "optimization": (0.0316, 0.0417)},
)
"""The pilot of the current world and regime; None until one is committed."""


def primary() -> Outcome:
    """Return the primary outcome."""
    return find(PRIMARY_OUTCOME)


def family() -> dict[str, Weights]:
    """Return the primary family by name, 2 k + 1 contrasts for k components: main effects, effects within RRPO, RRPO - DiffRO."""
    return main_effects() | corner_effects() | overall()


def allowed(arms: Iterable[str]) -> dict[str, Weights]:
    """Return the contrasts of the family whose arms are all available.

    If none of them concerns a single component, the effects of components added to DiffRO are included instead.
    """
    available = set(arms)
    contrasts = {name: weights for name, weights in family().items() if set(weights) <= available}
    if any(component_of(name) for name in contrasts):
        return contrasts
    return {name: weights for name, weights in effects_alone().items() if set(weights) <= available} | contrasts


def declared(labels: Iterable[str]) -> dict[str, dict[str, Weights]]:
    """Return setting -> tested contrasts, with arms named without their setting. Arms without a setting are the setting ``""``.

    All named settings of a grid have the same family: the contrasts allowed by the arms that they share.
    """
    arms: dict[str, set[str]] = {}
    for label in labels:
        arm, setting = split_label(label)
        arms.setdefault(setting, set()).add(arm)
    named_settings = [available for setting, available in arms.items() if setting]
    shared = allowed(set.intersection(*named_settings)) if named_settings else {}
    return {setting: shared if setting else allowed(available) for setting, available in arms.items()}


def labelled(weights: Mapping[str, float], setting: str) -> dict[str, float]:
    """Return a contrast of arms as a contrast of the labels that these arms have in a setting."""
    return {join_label(arm, setting): weight for arm, weight in weights.items()}


def margin_text() -> str:
    """Return the margin as text."""
    return f"{100 * MARGIN:g} points"
