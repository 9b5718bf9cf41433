"""The pilot: only the spread is printed, and variance components use draws that share everything but one level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ablations import pilot
from ablations.execution.building import Builder
from ablations.grids import GRIDS, arms
from ablations.pilot import (
    MOST,
    REPLICATES,
    SEEDS,
    committed,
    decomposed,
    differences,
    draw,
    lines,
    measured,
    replicates,
)
from ablations.stats.family import ALPHA, MARGIN, PILOT, POWER, Pilot, family
from ablations.stats.power import detectable, seeds_needed, spread_bound
from rrpo.experiment import dataflow
from rrpo.pipeline.stages import Stage
from rrpo.profiles import EMBEDDED

SPREAD = np.array([0.02, -0.03, 0.06, 0.01, 0.11, -0.02, 0.05, 0.04])
NESTED = np.random.default_rng(0).normal(0, 0.05, REPLICATES)


def test_what_is_printed_is_the_spread_whatever_the_difference() -> None:
    printed = lines(measured(SPREAD, "abc"))
    assert lines(measured(SPREAD + 0.3, "abc")) == printed, "nothing depends on the mean"
    sd = float(SPREAD.std(ddof=1))
    bound = spread_bound(sd, 8)
    assert f"{100 * sd:.1f} points (80 % upper bound {100 * bound:.1f})" in printed[0]
    for name, s in (("point estimate", sd), ("80 % upper bound", bound)):
        needed = seeds_needed(0.05, s, 0.05 / 7)
        assert needed is not None
        smallest = 100 * detectable(s, 16, 0.05 / 7)
        assert f"{name} {100 * s:.1f}: {smallest:.1f} points ({needed} seeds for 5 points)" in printed[1]
    assert printed[0].endswith("at most 16 seeds are run")
    assert printed[1].startswith("with 16 seeds")
    parts, others = (decomposed(measured(SPREAD, "abc"), NESTED + shift).parts for shift in (0.0, -0.2))
    assert parts == others
    assert parts.startswith("standard deviations due to redrawing one thing alone, in points: data ")


def test_the_last_line_is_what_is_to_be_committed() -> None:
    result = decomposed(measured(SPREAD, "abc"), NESTED)
    evaluated = eval(committed(result).partition(" = ")[2], {"Pilot": Pilot})
    assert (evaluated.seeds, evaluated.world) == (8, "abc")
    assert evaluated.spread == pytest.approx(result.spread, abs=1e-4)
    assert evaluated.components.keys() == result.components.keys()
    for name, values in result.components.items():
        assert evaluated.components[name] == pytest.approx(values, abs=1e-4)
    assert lines(measured(SPREAD, "abc"))[-1] == committed(measured(SPREAD, "abc"))
    assert "components" not in lines(measured(SPREAD, "abc"))[-1]


def test_shares_are_of_the_variance() -> None:
    components = {"data": (0.03, 0.05), "reward model": (0.0, 0.04), "optimization": (0.04, 0.05)}
    known = Pilot(spread=0.05, seeds=8, world="w", components=components)
    assert "in points: data 3.0 (80 % upper bound 5.0), reward model 0.0 (80 % upper bound 4.0), optim" in known.parts
    assert Pilot(spread=0.05, seeds=8, world="w").parts == ""


def keys(stage: Stage) -> dict[str, str]:
    return {role: child.key for role, child in stage.inputs.items()}


@pytest.mark.parametrize("arm", ["diffro", "rrpo"])
def test_a_reward_model_or_an_optimisation_is_redrawn_alone(arm: str) -> None:
    plain, other_rm, other_policy = (
        dataflow.optimized(EMBEDDED, cells[arm].arm, 1000)
        for cells in (draw(1000), draw(1000, rm_seed=7), draw(1000, policy_seed=7))
    )
    assert plain.key == dataflow.optimized(EMBEDDED, arms()[arm], 1000).key
    assert {role for role in plain.inputs if keys(plain)[role] != keys(other_rm)[role]} == {"reward_model"}
    assert other_rm.config == plain.config
    model, other = plain.inputs["reward_model"], other_rm.inputs["reward_model"]
    assert keys(model)["speech"] == keys(other)["speech"], "the same annotated utterances and raters"
    assert (other.config.seed, other.inputs["model"].config.seed) == (7, 7)
    assert {role for role in plain.inputs if keys(plain)[role] != keys(other_policy)[role]} == {"rl_prompts"}
    assert other_policy.config.seed == 7


def test_an_optimisation_is_compared_with_sfts_samples_under_its_own_noise() -> None:
    cell = draw(1000, policy_seed=7)["rrpo"]
    assert cell.stages["scored"].inputs["sft_samples"].config.seed == 7
    assert cell.stages["scored"].inputs["sft_samples"].config.steps == 0
    assert "sft" not in cell.stages["scored"].inputs["sft"].inputs


def test_replicates_are_nested_and_the_first_of_each_is_the_pilots() -> None:
    table = np.empty((*REPLICATES, 3), int)
    draws = replicates()
    for index, cells in zip(np.ndindex(*REPLICATES), draws, strict=True):
        (seeds,) = {(c.seed, c.arm.rm_seed or c.seed, c.arm.policy_seed or c.seed) for c in cells.values()}
        table[index] = seeds
    assert [len(np.unique(table[..., part])) for part in range(3)] == [4, 8, 16], "none is used twice"
    assert (table[:, :, 0, 1] == table[:, :, 1, 1]).all(), "one reward model, two optimisations"
    assert (table[:, 0, 0] == np.array([SEEDS[:4]] * 3).T).all()
    pilot_cells = {cell.hash for seed in SEEDS for cell in draw(seed).values()}
    assert len({cell.hash for cells in draws for cell in cells.values()} - pilot_cells) == 24
    assert (table >= 1000).all(), "development"


def stored(store: Path, arm: str, clean: int) -> None:
    """Store ten samples of an arm on seed 1000, of which ``clean`` are clean at the last update and none before."""
    folder = draw(1000)[arm].stages["scored"].path(store)
    folder.mkdir(parents=True)
    predicted = ["sad"] * clean + ["angry"] * (10 - clean)
    table = {"step": [0] * 10 + [9] * 10, "target": "sad", "test": ["angry"] * 10 + predicted}
    samples = pd.DataFrame(table | {"artefact_click": False, "phone_errors": 0, "phones": 9})
    samples.to_parquet(folder / "samples.parquet")


def test_the_difference_is_rrpos_clean_success_less_diffros(tmp_path: Path) -> None:
    for arm, clean in {"rrpo": 7, "diffro": 4}.items():
        stored(tmp_path, arm, clean)
    assert differences([draw(1000)], tmp_path) == pytest.approx([0.3])


def test_the_command_builds_both_arms_and_prints_the_same_whatever_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: set[str] = set()

    def build(builder: Builder, stages: list[Stage]) -> dict[str, str]:
        assert {stage.name for stage in stages} == {"score"}
        built.update(stage.key for stage in stages)
        return {}

    def call(shift: float, *options: str) -> str:
        x = {8: SPREAD + shift, NESTED.size: NESTED.ravel() + shift}
        monkeypatch.setattr(pilot, "differences", lambda draws, store: x[len(draws)])
        arguments = [*options, "--runs-dir", str(tmp_path / "runs"), "--device", "cpu"]
        result = CliRunner().invoke(pilot.app, arguments)
        assert result.exit_code == 0, result.output
        return result.output

    monkeypatch.setattr(Builder, "build", build)
    output = call(0.777)
    assert output == call(-0.3)
    assert len(built) == 16
    assert "spread of RRPO - DiffRO in clean success over 8 development seeds" in output
    assert "PILOT: Pilot | None = Pilot(spread=" in output
    output = call(0.777, "--replicated")
    assert output == call(-0.3, "--replicated")
    assert len(built) == 16 + 24, "16 draws, of which four are the pilot's"
    assert "components={'data': (" in output
    assert f"Pilot(spread={PILOT.spread:.4f}" in output, "the committed spread stays"  # type: ignore[union-attr]


def test_components_are_not_estimated_before_a_pilot_is_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pilot, "PILOT", None)
    monkeypatch.setattr(Builder, "build", lambda builder, stages: pytest.fail("nothing may be built"))
    result = CliRunner().invoke(pilot.app, ["--replicated", "--runs-dir", str(tmp_path / "runs"), "--device", "cpu"])
    assert (result.exit_code, "no committed pilot" in result.output) == (2, True)


def test_the_committed_pilot_is_of_the_installed_world_and_gives_the_seeds_of_the_grid() -> None:
    assert PILOT is not None
    assert PILOT.world == draw(1000)["rrpo"].world_hash
    needed = seeds_needed(MARGIN, PILOT.spread, ALPHA / len(family()), POWER)
    assert GRIDS["full"].seeds == (needed if needed and needed <= MOST else MOST)
