"""The section *Regime* of the validation report: the rule of ``docs/regime.md``, evaluated with the profile's own constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ablations.grids import arms
from ablations.regime import (
    GENTLE_KL,
    ORACLE,
    PHONES,
    SATURATED_PROXY,
    VANILLA,
    WINDOW,
    by_seed,
    ends,
    measure_gentle,
    measure_window,
    measuring,
    peak,
)
from ablations.stats.statistics import Interval, at_passage, t_interval
from rrpo.arms import BASE
from rrpo.config import ArmConfig
from rrpo.experiment import measurements
from rrpo.pipeline.stages import Stage
from rrpo.profiles import Profile
from rrpo.validation.lines import Estimate, Line

if TYPE_CHECKING:
    import pandas as pd

SECTION = "Regime"
SEEDS = 3
"""Number of development seeds, starting with the card's own."""


def candidates() -> dict[str, ArmConfig]:
    """Return the two arms on which the regime is chosen, with the profile's own constants."""
    return {VANILLA: arms()[BASE], ORACLE: arms()[ORACLE]}


def stages(profile: Profile, seeds: Sequence[int]) -> list[Stage]:
    """Return the stages to build: two policy optimizations per seed, evaluated as in the rule's steps."""
    return [measurements.assessed(measuring(profile), arm, seed) for seed in seeds for arm in candidates().values()]


def lines(table: pd.DataFrame) -> list[Line]:
    """Return the lines of the section. Intervals are t intervals over seeds.

    Args:
        table: Result of `ablations.regime.measured` for the `candidates`.
    """
    vanilla = table[table["candidate"] == VANILLA]
    runs, updates = by_seed(vanilla), int(vanilla["step"].max())
    gentle, best = measure_gentle(vanilla), peak(vanilla)
    first, last = (part.xs(VANILLA) for part in ends(table))
    window, phones = measure_window(table, VANILLA)
    saturated = t_interval([at_passage(run["proxy"], run["step"], SATURATED_PROXY) for run in runs])
    timing = f", after {saturated.mean:.0f} updates on average" if saturated.n else ""
    return [
        Line(
            section=SECTION,
            name=f"proxy gain at {GENTLE_KL:g} nats a token",
            note=gentle.arrivals,
            **_estimate(gentle.gain),
        ),
        Line(
            section=SECTION,
            name="phone errors where val is at its highest / SFT's",
            value=best.phone_errors,
            at_most=PHONES,
            note=f"val {best.gold:.3f} after {best.step:.0f} updates",
        ),
        Line(
            section=SECTION,
            name="highest proxy accuracy",
            at_least=SATURATED_PROXY,
            note=f"{saturated.n} of {len(runs)} seeds reach {SATURATED_PROXY:g} within {updates} updates{timing}",
            **_estimate(t_interval([run["proxy"].max() for run in runs])),
        ),
        Line(section=SECTION, name="window: oracle - vanilla at the end, val", at_least=WINDOW, **_estimate(window)),
        Line(section=SECTION, name="window: its interval", at_least=0.0, decided_by="low", **_estimate(window)),
        Line(section=SECTION, name="phone errors at the end / SFT's", value=phones, at_most=PHONES),
        Line(
            section=SECTION,
            name="hacked share at the end, by val",
            note=f"SFT's {first['hacked'].mean():.3f}",
            **_estimate(t_interval(last["hacked"])),
        ),
    ]


def _estimate(over_seeds: Interval) -> Estimate:
    return {"value": over_seeds.mean, "low": over_seeds.low, "high": over_seeds.high}
