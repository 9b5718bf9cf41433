"""Power analysis of a plan: the difference that the primary test detects with the planned number of seeds."""

from __future__ import annotations

from collections.abc import Iterable

from ablations.outcomes import all_outcomes
from ablations.stats.family import ALPHA, MARGIN, POWER, Pilot, declared, margin_text, primary
from ablations.stats.power import detectable, seeds_needed, spread_bound

SPREADS = (0.03, 0.05, 0.08)
"""Standard deviations over seeds for which the detectable difference is given as long as no pilot is committed."""


def analyze_power(labels: Iterable[str], n: int, pilot: Pilot | None) -> list[str]:
    """Return the power analysis as readable lines; empty if the arms allow no contrast of the primary family.

    Args:
        labels: Labels of the grid's arms.
        n: Total number of planned seeds.
        pilot: The measured spread over seeds; None if there is no pilot.
    """
    tested = {setting: contrasts for setting, contrasts in declared(labels).items() if contrasts}
    contrasts = next(iter(tested.values()), {})
    if not contrasts:
        return []
    m = len(contrasts)
    scope = f"in each of {len(tested)} settings, without a correction for their number, " if len(tested) > 1 else ""
    lines = [
        f"primary outcome: {primary().label} at the last update; tested {scope}at a family-wise level of {ALPHA:g} "
        f"(each interval {1 - ALPHA / m:.4f}): "
        f"{'; '.join(contrasts)}; estimates only: "
        + ", ".join(outcome.label for outcome in all_outcomes() if outcome.name != primary().name)
    ]
    if n < 2:
        return [*lines, "WARNING: one seed allows no test; plan at least 8 seeds"]
    if pilot is None:
        smallest = ", ".join(f"{_points(detectable(sd, n, ALPHA / m, POWER))} at {100 * sd:g}" for sd in SPREADS)
        return [
            *lines,
            f"no pilot of this profile and world is committed: with {n} seeds, the smallest difference detected with "
            f"{100 * POWER:g} % power, by its standard deviation over seeds (both in points): {smallest}",
        ]
    bound = spread_bound(pilot.spread, pilot.seeds)
    estimates = []
    for name, sd in (("point estimate", pilot.spread), ("80 % upper bound", bound)):
        needed = seeds_needed(MARGIN, sd, ALPHA / m, POWER)
        enough = f"{needed} seeds" if needed else "no number of seeds"
        smallest = f"{_points(detectable(sd, n, ALPHA / m, POWER))} points ({enough} for {margin_text()})"
        estimates.append(f"{name} {100 * sd:.1f}: {smallest}")
    return [
        *lines,
        f"with {n} seeds, the smallest difference detected with {100 * POWER:g} % power, by its standard deviation over the "
        f"pilot's {pilot.seeds} development seeds in world {pilot.world}: {'; '.join(estimates)}",
        *([pilot.parts] if pilot.parts else []),
    ]


def _points(difference: float) -> str:
    """Return a detectable difference of fractions in points; more than 100 of them cannot occur."""
    return f"{100 * difference:.1f}" if difference <= 1 else "no difference of up to 100"
