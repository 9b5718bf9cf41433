"""What the planned number of seeds can show, said before anything runs: the difference that the primary test detects."""

from __future__ import annotations

from collections.abc import Iterable

from ablations.outcomes import all_outcomes
from ablations.stats.family import ALPHA, MARGIN, PILOT, POWER, Pilot, declared, margin_text, primary
from ablations.stats.power import detectable, seeds_needed, spread_bound

SPREADS = (0.03, 0.05, 0.08)
"""Standard deviations over seeds for which a plan gives the detectable difference while no pilot is committed."""


def prospects(labels: Iterable[str], n: int, pilot: Pilot | None = PILOT) -> list[str]:
    """Lines of a plan of a grid of these labels for ``n`` seeds in all; none where its arms allow no contrast of the family."""
    contrasts = next((found for found in declared(labels).values() if found), {})
    if not contrasts:
        return []
    m = len(contrasts)
    lines = [
        f"primary outcome: {primary().label} at the last update; tested, simultaneously at {1 - ALPHA / m:.4f}: "
        f"{'; '.join(contrasts)}; estimates alone: "
        + ", ".join(outcome.label for outcome in all_outcomes() if outcome.name != primary().name)
    ]
    if n < 2:
        return [*lines, "WARNING: one seed gives no test; plan at least 8"]
    if pilot is None:
        least = ", ".join(f"{100 * detectable(sd, n, ALPHA / m):.1f} at {100 * sd:g}" for sd in SPREADS)
        return [
            *lines,
            f"no pilot is committed: with {n} seeds a difference is found with {100 * POWER:g} % power from so many points on, "
            f"by its spread over seeds in points: {least}",
        ]
    bound = spread_bound(pilot.spread, pilot.seeds)
    said = []
    for name, sd in (("point estimate", pilot.spread), ("80 % upper bound", bound)):
        needed = seeds_needed(MARGIN, sd, ALPHA / m, POWER)
        enough = f"{needed} seeds" if needed else "no number of seeds"
        least = f"{100 * detectable(sd, n, ALPHA / m, POWER):.1f} points ({enough} for {margin_text()})"
        said.append(f"{name} {100 * sd:.1f}: {least}")
    return [
        *lines,
        f"with {n} seeds a difference is found with {100 * POWER:g} % power from, by the spread over the pilot's {pilot.seeds} "
        f"development seeds in world {pilot.world}: {'; '.join(said)}",
        *([pilot.parts] if pilot.parts else []),
    ]
