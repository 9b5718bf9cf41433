"""A cell's identity: what may be pooled with it, and what its record says."""

from dataclasses import replace

import pytest

from rrpo.cell import Cell
from rrpo.config import OFF, ArmConfig
from rrpo.corpus.config import ManifestConfig
from rrpo.profiles import SMOKE, Profile


def cell(profile: Profile = SMOKE, seed: int = 1, arm: ArmConfig | None = None) -> Cell:
    return Cell(label="rrpo", arm=arm or ArmConfig(), seed=seed, profile=profile)


CHANGED = {
    "base policy": replace(SMOKE, base=replace(SMOKE.base, steps=7)),
    "evaluation prompts": replace(SMOKE, optimize=replace(SMOKE.optimize, final_prompts=100)),
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
