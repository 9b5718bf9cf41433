"""Arms and grids: their regularizers, cells, order and shared stages."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from ablations.components import factorial
from ablations.grids import GRIDS, OVERRIDES, arms, profile_value, scale_batches, settings
from rrpo.config import ArmConfig, RegularizerConfig
from rrpo.experiment.cell import Cell
from rrpo.experiment.dataflow import reward_model
from rrpo.plugins import PluginError
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
        rest = {f.name: getattr(arms()[name], f.name) for f in fields(ArmConfig) if f.name != "regularizers"}
        assert rest == {f.name: getattr(ArmConfig(), f.name) for f in fields(ArmConfig) if f.name != "regularizers"}


def test_full_grid_and_its_controls_on_the_first_three_seeds():
    grid_cells = cells("full", 8)
    assert [c.seed for c in grid_cells] == sorted(c.seed for c in grid_cells), "all arms of the first seed come first"
    everywhere = {"sft", "pretrained", *factorial(), "oracle", "diffro_scaled", "diffro_kl"}
    arms_of = [{c.label for c in grid_cells if c.seed == seed} for seed in range(1, 9)]
    assert arms_of == [everywhere | {"placebo", "content_only"}] * 3 + [everywhere] * 5
    assert len({c.hash for c in grid_cells}) == len(grid_cells) == 13 * 8 + 2 * 3
    assert len({c.world_hash for c in grid_cells}) == 1


def test_arms_that_ask_what_else_might_help_are_vanilla_but_for_one_thing():
    by_label = {c.label: c.stages["optimized"] for c in cells("full")}
    for name, changed in {"content_only": {"emotion_weight": 0.0}, "diffro_kl": {"beta": 0.03}}.items():
        assert by_label[name].config == replace(by_label["diffro"].config, **changed)
        assert by_label[name].inputs["reward_model"].key == by_label["diffro"].inputs["reward_model"].key
    assert by_label["diffro_scaled"].inputs["reward_model"].key == by_label["diffro"].inputs["reward_model"].key
    assert (
        by_label["diffro_scaled"].inputs["rrpo_fidelity"].inputs["reward_model"].key
        == by_label["rrpo"].inputs["reward_model"].key
    )


def test_stages_are_shared_between_arms_of_a_seed():
    by_label = {c.label: c for c in cells("full")}
    inputs = by_label["diffro"].stages["optimized"].inputs
    assert by_label["rrpo"].stages["optimized"].inputs["policy"].key == inputs["policy"].key
    assert by_label["sft"].stages["examined"].key == by_label["pretrained"].stages["examined"].key
    assert by_label["sft"].stages["optimized"].config.steps == 0


def test_the_placebo_and_the_oracle_are_not_fine_tuned():
    assert not arms()["placebo"].finetune
    assert not arms()["oracle"].finetune


def test_loo_leaves_one_out():
    assert [on(c.arm) for c in cells("loo")][2:] == [{"eam", "adv"}, {"ls", "adv"}, {"ls", "eam"}, {"ls", "eam", "adv"}]


def test_shortcut_grid_shares_the_profiles_own_strength():
    by_label = {c.label: c for c in cells("shortcut")}
    assert len(by_label) == 15
    assert by_label["diffro@shortcut0.9"].stages["optimized"].key == cells("smoke")[0].stages["optimized"].key
    assert (
        by_label["diffro@shortcut0"].stages["optimized"].key != by_label["diffro@shortcut0.9"].stages["optimized"].key
    )


def test_sensitivity_changes_one_setting_at_a_time():
    by_label = {c.label: c for c in cells("sensitivity")}
    full = {c.label: c for c in cells("full")}
    for name in ("diffro", "rrpo", "oracle"):
        assert by_label[f"{name}@own"].stages["optimized"].key == full[name].stages["optimized"].key
    by_setting: dict[str, list[str]] = {}
    for label in by_label:
        by_setting.setdefault(label.partition("@")[2], []).append(label.partition("@")[0])
    pushed = {"own", "hard", *(f"beta{beta:g}" for beta in (0.001, 0.01, 0.03) if beta != EMBEDDED.optimize.beta)}
    assert {setting for setting, names in by_setting.items() if names == ["diffro", "rrpo", "oracle"]} == pushed
    assert all(names == ["diffro", "rrpo"] for setting, names in by_setting.items() if setting not in pushed)
    assert len(by_setting) == len(pushed) + 10, "noise, shortcut, artefacts, 2 rates, 3 sizes of data, 2 rewards"
    assert len({c.stages["optimized"].key for c in by_label.values()}) == len(by_label) - 2, (
        "DiffRO has one form of reward"
    )


def test_a_setting_changes_what_it_is_named_after_and_nothing_else():
    arm, by_label = arms()["rrpo"], {c.label: c for c in cells("sensitivity")}
    assert by_label["rrpo@noise4"].arm == replace(arm, rater_noise=4.0)
    assert by_label["rrpo@full_l_ser"].arm == arms()["rrpo_full_l_ser"]
    assert by_label["diffro@full_l_ser"].arm == arms()["diffro"]
    assert by_label["oracle@hard"].stages["optimized"].config == replace(
        by_label["oracle@own"].stages["optimized"].config, lr=2 * EMBEDDED.optimize.lr, beta=0.001, steps=480
    )
    small = by_label["rrpo@data150_8_60"].stages["optimized"].inputs["reward_model"]
    assert small.inputs["speech"].config.split.size == 60
    assert (small.inputs["model"].inputs["speech"].config.split.size, small.inputs["speech"].config.split.voices) == (
        150,
        8,
    )


def test_what_is_the_profiles_own_is_no_other_setting():
    """In a profile with other values, the former default is one of the settings."""
    sizes = EMBEDDED.sizes | {"rm_pretrain": 500}
    profile_changed = replace(EMBEDDED, rater_noise=4.0, rm_speakers=32, annotated=100, sizes=sizes)
    default, changed = (settings(profile) for profile in (EMBEDDED, profile_changed))
    assert ("noise4" in default, "noise0.3" in default) == (True, False)
    assert ("noise4" in changed, "noise0.3" in changed) == (False, True)
    assert changed["data2000_32_300"][0] == {"rm_utterances": 2000, "annotated": 300}
    assert "data500_32_100" not in changed
    for override in OVERRIDES:
        assert hasattr(ArmConfig(), override)
        assert profile_value(EMBEDDED, override) is not None


def test_rm_grid_has_every_distinct_reward_model_once_and_no_policy():
    grid_cells = cells("rm")
    keys = [reward_model(EMBEDDED, c.arm, 1).key for c in grid_cells]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {reward_model(EMBEDDED, c.arm, 1).key for c in cells("full")}
    assert all(c.stages.keys() == {"examined", "fidelity"} for c in grid_cells)


def test_larger_batches_are_another_experiment():
    larger = scale_batches(EMBEDDED, 4)
    assert larger.name == "embedded-b4"
    assert larger.optimize.batch == 4 * EMBEDDED.optimize.batch
    assert larger.base.batch == 4 * EMBEDDED.base.batch
    assert scale_batches(EMBEDDED, 1) is EMBEDDED


def test_the_experiment_of_world_cards_is_no_grid() -> None:
    with pytest.raises(PluginError, match="already means something else"):
        GRIDS.register("world", GRIDS["loo"])
