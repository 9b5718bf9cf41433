"""Arms of other systems: each makes a cell that shares the right stages, and can be selected by name."""

from __future__ import annotations

import pytest

from ablations.baselines import CORE, SECTIONS, baselines, optimizers, robust_arms
from ablations.grids import GRIDS, arms
from ablations.guided_arms import guided_arms
from rrpo.experiment.cell import Cell
from rrpo.optimizers import OPTIMIZERS
from rrpo.profiles import PROFILES

QUICK = PROFILES["quick"]


def test_sections_share_no_name_with_each_other_or_the_factorial():
    names = [name for section in SECTIONS for name in section()]
    assert len(set(names)) == len(names)
    assert set(CORE) <= {*names, *robust_arms(), *guided_arms()}
    assert not set(optimizers()) & {*robust_arms(), *guided_arms()}
    unlisted = [name for name in arms() if name not in names]
    assert {"sft", "diffro", "rrpo", "oracle"} <= set(unlisted)


def test_the_screen_is_the_core_on_three_seeds():
    grid = GRIDS["baselines"]
    assert grid.seeds == 3
    assert [c.label for c in grid.cells(QUICK, [101])] == ["sft", "diffro", "rrpo", "eam", *CORE]


@pytest.mark.parametrize("name", sorted(optimizers()))
def test_an_arm_starts_where_diffro_does(name: str):
    """It has the same SFT policy and judges as DiffRO."""
    stages = {n: Cell(label=n, arm=arms()[n], seed=1, profile=QUICK).stages for n in (name, "diffro", "rrpo")}
    inputs = stages[name]["optimized"].inputs
    for role in ("policy", "recogniser", "codec", "val", "eval_prompts"):
        assert inputs[role].key == stages["diffro"]["optimized"].inputs[role].key
    assert stages[name]["optimized"].key not in {stages[n]["optimized"].key for n in ("diffro", "rrpo")}


@pytest.mark.parametrize("name", sorted(SECTIONS[0]()))
def test_an_optimisers_arm_has_the_reward_model_it_is_named_after(name: str):
    stages = {n: Cell(label=n, arm=arms()[n], seed=1, profile=QUICK).stages for n in (name, "diffro", "rrpo")}
    base = "rrpo" if "rrpo" in name else "diffro"
    key, base_key = (stages[n]["optimized"].inputs["reward_model"].key for n in (name, base))
    assert key == base_key


def test_every_optimiser_of_the_package_has_arms():
    used = {arm.optimizer.name for arm in baselines().values() if arm.optimizer is not None}
    assert used == {name for name, kind in OPTIMIZERS.items() if kind.version}
