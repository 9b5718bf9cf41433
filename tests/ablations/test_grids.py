"""Arms and grids: which regularisers, which cells, in which order, sharing what."""

from __future__ import annotations

from dataclasses import fields

import pytest

from ablations.components import factorial, singles
from ablations.grids import GRIDS, arms, scale_batches
from rrpo.config import ArmConfig, RegularizerConfig
from rrpo.pipeline.cell import Cell
from rrpo.pipeline.dataflow import reward_model
from rrpo.profiles import PROFILES

EMBEDDED = PROFILES["embedded"]


def cells(grid: str, seeds: int = 1) -> list[Cell]:
    return GRIDS[grid].cells(EMBEDDED, range(1, seeds + 1))


def on(arm: ArmConfig) -> set[str]:
    r = arm.regularizers
    return {name for name, strength in {"ls": r.epsilon, "eam": r.mix_probability, "adv": r.alpha}.items() if strength}


def test_diffro_has_all_three_at_identity_and_rrpo_the_papers_strengths():
    assert on(arms()["diffro"]) == set()
    assert arms()["rrpo"].regularizers == RegularizerConfig()


@pytest.mark.parametrize("name", factorial()[1:-1])
def test_an_arm_of_the_factorial_has_on_what_it_is_named_after(name: str):
    assert on(arms()[name]) == set(name.split("_"))


def test_arms_of_the_factorial_differ_in_nothing_else():
    for name in factorial():
        other = {f.name: getattr(arms()[name], f.name) for f in fields(ArmConfig) if f.name != "regularizers"}
        assert other == {f.name: getattr(ArmConfig(), f.name) for f in fields(ArmConfig) if f.name != "regularizers"}


def test_full_grid():
    found = cells("full", 8)
    assert len(found) == 12 * 8
    assert [c.seed for c in found] == sorted(c.seed for c in found), "seed by seed over all arms"
    assert {c.label for c in found} == {"sft", "pretrained", *factorial(), "oracle", "placebo"}
    assert len({c.hash for c in found}) == len(found)
    assert len({c.world_hash for c in found}) == 1


def test_stages_are_shared_between_arms_of_a_seed():
    one = {c.label: c for c in cells("full")}
    inputs = one["diffro"].stages["optimized"].inputs
    assert one["rrpo"].stages["optimized"].inputs["policy"].key == inputs["policy"].key
    assert one["sft"].stages["examined"].key == one["pretrained"].stages["examined"].key
    assert one["sft"].stages["optimized"].config.steps == 0


def test_the_placebo_and_the_oracle_are_not_fine_tuned():
    assert not arms()["placebo"].finetune
    assert not arms()["oracle"].finetune


def test_loo_leaves_one_out():
    assert [on(c.arm) for c in cells("loo")][2:] == [{"eam", "adv"}, {"ls", "adv"}, {"ls", "eam"}, {"ls", "eam", "adv"}]


def test_shortcut_grid_shares_the_profiles_own_strength():
    found = {c.label: c for c in cells("shortcut")}
    assert len(found) == 15
    assert found["diffro@shortcut0.9"].stages["optimized"].key == cells("smoke")[0].stages["optimized"].key
    assert found["diffro@shortcut0"].stages["optimized"].key != found["diffro@shortcut0.9"].stages["optimized"].key


def test_sensitivity_crosses_three_factors_and_one_setting_is_the_profiles_own():
    found = {c.label: c for c in cells("sensitivity")}
    assert len(found) == 2 * 2 * 3 * 5 == len({c.hash for c in found.values()})
    assert len({c.stages["optimized"].key for c in found.values()}) == len(found)
    own = f"noise{EMBEDDED.rater_noise:g}_shortcut{EMBEDDED.shortcut:g}_lr{EMBEDDED.finetune.lr:g}"
    full = {c.label: c for c in cells("full")}
    for name in singles():
        assert found[f"{name}@{own}"].stages["optimized"].key == full[name].stages["optimized"].key
    changed = found["ls@noise0.6_shortcut0_lr0.001"].stages["optimized"].inputs["reward_model"]
    assert changed.config.lr == 1e-3
    assert changed.config.regularizers == arms()["ls"].regularizers
    assert changed.inputs["speech"].config.split.rater_noise == 0.6
    assert changed.inputs["model"].inputs["speech"].config.split.shortcut == 0


def test_rm_grid_has_every_distinct_reward_model_once_and_no_policy():
    found = cells("rm")
    keys = [reward_model(EMBEDDED, c.arm, 1).key for c in found]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {reward_model(EMBEDDED, c.arm, 1).key for c in cells("full")}
    assert all(c.stages.keys() == {"examined", "fidelity"} for c in found)


def test_larger_batches_are_another_experiment():
    larger = scale_batches(EMBEDDED, 4)
    assert larger.name == "embedded-b4"
    assert larger.optimize.batch == 4 * EMBEDDED.optimize.batch
    assert larger.base.batch == 4 * EMBEDDED.base.batch
    assert scale_batches(EMBEDDED, 1) is EMBEDDED
