"""The section *Regime* of the validation report: the rule of ``docs/regime.md``, evaluated with the profile's own constants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ablations import regime
from ablations.grids import arms
from ablations.regime import ORACLE, PHONES, SATURATED_PROXY, VANILLA
from ablations.stats.statistics import Interval, at_passage, t_interval
from rrpo.arms import BASE
from rrpo.config import ArmConfig
from rrpo.experiment import measurements
from rrpo.pipeline.stages import Stage
from rrpo.profiles import Profile
from rrpo.validation.lines import Line

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
    return [
        measurements.assessed(regime.measuring(profile), arm, seed) for seed in seeds for arm in candidates().values()
    ]


def lines(table: pd.DataFrame) -> list[Line]:
    """Return the lines of the section. Intervals are t intervals over seeds.

    Args:
        table: Result of `ablations.regime.measured` for the `candidates`.
    """
    vanilla = table[table["candidate"] == VANILLA]
    runs, updates = regime.by_seed(vanilla), int(vanilla["step"].max())
    gentle, best = regime.measure_gentle(vanilla), regime.peak(vanilla)
    first, last = (part.xs(VANILLA) for part in regime.ends(table))
    window, phones = regime.measure_window(table, VANILLA)
    saturated = t_interval([at_passage(run["proxy"], run["step"], SATURATED_PROXY) for run in runs])
    timing = f", after {saturated.mean:.0f} updates on average" if saturated.n else ""
    reached = f"{saturated.n} of {len(runs)} seeds reach {SATURATED_PROXY:g} within {updates} updates{timing}"
    proxy = t_interval([run["proxy"].max() for run in runs])
    at_peak, width = f"val {best.gold:.3f} after {best.step:.0f} updates", "window: oracle - vanilla at the end, val"
    return [
        _line(f"proxy gain at {regime.GENTLE_KL:g} nats a token", gentle.gain, note=gentle.arrivals),
        _line("phone errors where val is at its highest / SFT's", best.phone_errors, at_most=PHONES, note=at_peak),
        _line("highest proxy accuracy", proxy, at_least=SATURATED_PROXY, note=reached),
        _line(width, window, at_least=regime.WINDOW),
        _line("window: its interval", window, at_least=0.0, decided_by="low"),
        _line("phone errors at the end / SFT's", phones, at_most=PHONES),
        _line(
            "hacked share at the end, by val", t_interval(last["hacked"]), note=f"SFT's {first['hacked'].mean():.3f}"
        ),
    ]


def _line(name: str, value: float | Interval, **fields: Any) -> Line:
    """Return a line of the section."""
    value, low, high, _ = value if isinstance(value, Interval) else (value, math.nan, math.nan, 1)
    return Line(section=SECTION, name=name, value=value, low=low, high=high, **fields)
