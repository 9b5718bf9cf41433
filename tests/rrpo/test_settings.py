"""Settings of a profile by dotted path: parsed by type, validated, and listed in the profile's name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rrpo.arms import ARMS
from rrpo.errors import InputError
from rrpo.experiment.cell import Cell
from rrpo.pipeline.stages import Stage
from rrpo.profiles import SMOKE, Profile
from rrpo.settings import assignments, changed, check_used, differences


def stages(profile: Profile) -> list[Stage]:
    return Cell(label="rrpo", arm=ARMS["rrpo"], seed=1, profile=profile).all_stages


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("optimize.beta=1e-2", 0.01),
        ("optimize.batch=8", 8),
        ("optimize.tau=2,1", (2.0, 1.0)),
        ("optimize.checkpoints=0,5", (0, 5)),
        ("optimize.schedule=cosine", "cosine"),
        ("policy.paced=False", False),
        ("sizes.rm_pretrain=50", 50),
        ("raters=5", 5),
    ],
)
def test_a_value_is_read_by_the_type_of_its_field(text: str, value: object):
    key = text.partition("=")[0]
    node: object = changed(SMOKE, assignments([text]))
    for name in key.split("."):
        node = node[name] if isinstance(node, dict) else getattr(node, name)
    assert node == value
    assert type(node) is type(value)


def test_values_need_no_text():
    profile = changed(SMOKE, {"optimize.tau": (2.0, 1.0), "optimize.beta": 0.01})
    assert (profile.optimize.tau, profile.optimize.beta) == ((2.0, 1.0), 0.01)
    assert profile.name == "smoke+optimize.beta=0.01+optimize.tau=2.0,1.0"


def test_fields_that_only_fit_together_are_set_together():
    profile = changed(SMOKE, {"optimize.final_prompts": 200, "eval_prompts": 200})
    assert profile.optimize.final_prompts == profile.eval_prompts == 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optimise.beta=1", ["no setting of that name", "got: optimise.beta", "nearest: optimize.beta"]),
        ("beta=1", ["no setting of that name", "optimize.beta"]),
        ("name=mine", ["no setting of that name"]),
        ("manifests=x", ["no setting of that name"]),
        ("optimize.optimizer.name=grpo", ["no setting of that name"]),
        ("optimize.beta", ["--set takes KEY=VALUE"]),
        ("optimize.beta=much", ["optimize.beta takes a number", "got: much"]),
        ("optimize.beta=nan", ["optimize.beta takes a number"]),
        ("optimize.batch=1.5", ["optimize.batch takes a whole number", "got: 1.5"]),
        ("policy.paced=yes", ["takes true or false"]),
        ("optimize.beta=-1", ["out of its range: beta must be in [0, inf), got -1.0"]),
        (
            "optimize.final_prompts=9000",
            ["eval_prompts must be at least optimize.final_prompts, 9000, got eval_prompts="],
        ),
    ],
)
def test_what_cannot_be_set_is_refused_with_a_remedy(text: str, words: list[str]):
    with pytest.raises(InputError) as caught:
        changed(SMOKE, assignments([text]))
    for word in [*words, "fix: "]:
        assert word in str(caught.value)


def test_a_key_is_given_once():
    with pytest.raises(InputError, match="given twice"):
        assignments(["raters=1", "raters=2"])


def test_a_value_that_the_profile_has_changes_nothing():
    assert changed(SMOKE, {"optimize.beta": str(SMOKE.optimize.beta)}) is SMOKE


def test_a_changed_value_is_part_of_the_identity_and_of_the_name():
    profile = changed(SMOKE, {"optimize.beta": "0.5"})
    assert profile.name == "smoke+optimize.beta=0.5"
    assert differences(SMOKE, profile) == {"optimize.beta": ("0.001", "0.5")}
    before, after = ({stage.key for stage in stages(p) if stage.name == "optimize"} for p in (SMOKE, profile))
    assert before.isdisjoint(after)
    by_hand = replace(SMOKE, optimize=replace(SMOKE.optimize, beta=0.5))
    assert {stage.key for stage in stages(by_hand)} == {stage.key for stage in stages(profile)}


@pytest.mark.parametrize(
    "key", ["finetune.regularizers.alpha=0.1", "optimize.seed=3", "optimize.reward=full_l_ser", "base.model.dim=32"]
)
def test_a_setting_that_the_arms_or_the_seed_override_is_refused(key: str):
    with pytest.raises(InputError, match="changes nothing here"):
        check_used(SMOKE, assignments([key]), stages)
    with pytest.raises(InputError, match="changes nothing here"):
        check_used(SMOKE, assignments([key, "optimize.beta=0.5"]), stages)


def test_a_setting_that_is_used_passes_and_so_does_one_that_changes_nothing():
    check_used(SMOKE, assignments(["optimize.final_prompts=200", "eval_prompts=200"]), stages)
    check_used(SMOKE, assignments(["optimize.beta=0.001"]), stages)
