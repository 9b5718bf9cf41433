"""The world card's section on the regime, on trajectories with a known answer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import pytest

from ablations import regime_section
from ablations.regime import measuring
from rrpo.profiles import EMBEDDED, SMOKE, Profile
from rrpo.validation.lines import Line

SEEDS = (1000, 1001, 1002)


def run(candidate: str, seed: int, **columns: Sequence[float]) -> pd.DataFrame:
    """Return the checkpoints 0, 20 and 40 of one seed."""
    values = {"proxy": [0.6, 0.8, 1.0], "gold": [0.7, 0.9, 0.8], "phone_errors": [0.1, 0.15, 0.25]}
    values |= {"kl_token": [0.0, 0.1, 0.3], "hacked": [0.3, 0.2, 0.4]} | columns
    table = pd.DataFrame({"step": [0, 20, 40]} | values)
    return table.assign(candidate=candidate, seed=seed, rollouts=32 * table["step"])


def section(*runs: pd.DataFrame) -> dict[str, Line]:
    return {line.name: line for line in regime_section.lines(pd.concat(runs, ignore_index=True))}


def test_what_the_rule_says_of_the_constants() -> None:
    """Three seeds, the last of which reaches neither .25 nats nor a proxy of .95."""
    oracle = [run("oracle", seed, gold=[0.7, 0.9, 0.9]) for seed in SEEDS]
    late = run("vanilla", 1002, proxy=[0.6, 0.7, 0.9], kl_token=[0.0, 0.1, 0.2])
    by_name = section(run("vanilla", 1000), run("vanilla", 1001), late, *oracle)
    gain = by_name["proxy gain at 0.25 nats a token"]
    assert gain.value == pytest.approx(0.35)  # three quarters of the way from update 20 to 40: .8 + .15 - .6
    assert (gain.passed, gain.note) == (None, "2 of 3 seeds get there")
    peak = by_name["phone errors where val is at its highest / SFT's"]
    assert (peak.value, peak.passed) == (pytest.approx(1.5), True)
    assert peak.note == "val 0.900 after 20 updates"
    proxy = by_name["highest proxy accuracy"]
    assert (proxy.value, proxy.passed) == (pytest.approx(2.9 / 3), True)
    assert proxy.note == "2 of 3 seeds reach 0.95 within 40 updates, after 35 updates on average"
    assert by_name["window: oracle - vanilla at the end, val"].value == pytest.approx(0.1)
    end = by_name["phone errors at the end / SFT's"]
    assert (end.value, end.passed) == (pytest.approx(2.5), False)
    hacked = by_name["hacked share at the end, by val"]
    assert (hacked.value, hacked.note, hacked.passed) == (pytest.approx(0.4), "SFT's 0.300", None)


@pytest.mark.parametrize(
    ("ends", "verdicts"),
    [
        ((0.90, 0.91, 0.92), (True, True)),  # .11 +- .025
        ((0.84, 0.85, 0.86), (False, True)),  # .05 +- .025
        ((0.80, 0.85, 1.00), (True, False)),  # .083 +- .26
    ],
)
def test_the_window_has_to_be_wide_and_above_0(ends: Sequence[float], verdicts: tuple[bool, bool]) -> None:
    oracle = [run("oracle", seed, gold=[0.7, 0.9, end]) for seed, end in zip(SEEDS, ends, strict=True)]
    by_name = section(*(run("vanilla", seed) for seed in SEEDS), *oracle)
    names = ("window: oracle - vanilla at the end, val", "window: its interval")
    assert tuple(by_name[name].passed for name in names) == verdicts


def test_a_proxy_that_never_gets_there_fails_and_says_so() -> None:
    slow = [run("vanilla", seed, proxy=[0.6, 0.7, 0.8]) for seed in SEEDS]
    proxy = section(*slow, *(run("oracle", seed) for seed in SEEDS))["highest proxy accuracy"]
    assert (proxy.value, proxy.passed) == (pytest.approx(0.8), False)
    assert proxy.note == "0 of 3 seeds reach 0.95 within 40 updates"
    assert math.isfinite(proxy.low)


@pytest.mark.parametrize("profile", [SMOKE, EMBEDDED], ids=lambda profile: profile.name)
def test_two_optimisations_a_seed_with_the_profiles_own_constants(profile: Profile) -> None:
    stages = regime_section.stages(profile, SEEDS)
    assert len({stage.key for stage in stages}) == 6
    for config in (stage.inputs["samples"].config for stage in stages):
        expected = profile.optimize
        assert (config.lr, config.beta, config.steps) == (expected.lr, expected.beta, expected.steps)
        assert config.eval_prompts == min(200, profile.eval_prompts)
    assert measuring(profile).sizes == profile.sizes
