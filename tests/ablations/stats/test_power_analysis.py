"""The power analysis of a plan: the tested contrasts, and the difference that the seeds detect, with and without a pilot."""

from __future__ import annotations

import pytest

from ablations.components import factorial, singles
from ablations.grids import loo
from ablations.stats.family import Pilot
from ablations.stats.power import detectable, seeds_needed, spread_bound
from ablations.stats.power_analysis import SPREADS, analyze_power
from rrpo.profiles import SMOKE

FACTORIAL = factorial()


def test_without_a_pilot_the_difference_is_told_for_several_spreads() -> None:
    tested, line = analyze_power(FACTORIAL, 8, None)
    assert "tested at a family-wise level of 0.05 (each interval 0.9929): LS, main effect; EAM, main effect" in tested
    assert "; Adv, in RRPO; RRPO - DiffRO; estimates only: hacked share" in tested
    assert line.startswith("no pilot of this profile and world is committed: with 8 seeds, the smallest difference")
    for sd in SPREADS:
        assert f"{100 * detectable(sd, 8, 0.05 / 7):.1f} at {100 * sd:g}" in line


def test_a_pilots_spread_is_told_with_its_upper_bound() -> None:
    _, line = analyze_power(FACTORIAL, 12, Pilot(spread=0.04, seeds=8, world="abc"))
    bound = spread_bound(0.04, 8)
    for name, sd in (("point estimate 4.0", 0.04), (f"80 % upper bound {100 * bound:.1f}", bound)):
        least = 100 * detectable(sd, 12, 0.05 / 7)
        assert f"{name}: {least:.1f} points ({seeds_needed(0.05, sd, 0.05 / 7)} seeds for 5 points)" in line
    assert "the pilot's 8 development seeds in world abc" in line


def test_a_replicated_pilots_components_are_told() -> None:
    parts = {"data": (0.01, 0.03), "reward model": (0.02, 0.03), "optimization": (0.02, 0.03)}
    line = analyze_power(FACTORIAL, 12, Pilot(spread=0.04, seeds=8, world="abc", components=parts))[-1]
    assert (
        "in points: data 1.0 (80 % upper bound 3.0), reward model 2.0 (80 % upper bound 3.0), optimization 2.0" in line
    )


@pytest.mark.parametrize(
    ("labels", "level", "names"),
    [
        ([cell.label for cell in loo(SMOKE, [1])], "0.9875", "LS, in RRPO; EAM, in RRPO; Adv, in RRPO; RRPO - DiffRO;"),
        (["diffro", "rrpo"], "0.9500", "RRPO - DiffRO;"),
        ([f"{arm}@{place}" for arm in singles() for place in "ab"], "0.9875", "LS, added to DiffRO; EAM, added"),
    ],
    ids=["loo", "smoke", "settings"],
)
def test_the_level_is_that_of_the_contrasts_that_the_arms_allow(labels: list[str], level: str, names: str) -> None:
    assert f"(each interval {level}): {names}" in analyze_power(labels, 8, None)[0]


def test_settings_are_tested_without_a_correction_for_their_number() -> None:
    tested, _ = analyze_power([f"{arm}@{place}" for arm in singles() for place in "abc"], 8, None)
    assert "; tested in each of 3 settings, without a correction for their number, at a family-wise level" in tested
    assert "settings" not in analyze_power(singles(), 8, None)[0]


def test_one_seed_gets_a_warning_and_a_grid_without_the_family_nothing() -> None:
    assert analyze_power(FACTORIAL, 1, None)[-1].startswith("WARNING")
    assert analyze_power(("sft", "diffro"), 8, None) == []


def test_a_difference_that_cannot_occur_is_not_promised() -> None:
    assert (
        "no difference of up to 100 points" in analyze_power(FACTORIAL, 2, Pilot(spread=0.06, seeds=8, world="abc"))[-1]
    )
