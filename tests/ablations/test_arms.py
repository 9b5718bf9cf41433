"""The list of arms, and the arms that make the reward robust by other means than RRPO."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from ablations.arms import Part, app, parts
from ablations.baselines import robust_arms
from ablations.grids import arms
from ablations.guided_arms import guided_arms
from rrpo.commands import field_docs
from rrpo.config import OFF, ArmConfig
from rrpo.experiment.dataflow import optimized, reward_model
from rrpo.plugins import Choice
from rrpo.profiles import SMOKE
from rrpo.regularizers import CONTROLS

FINETUNED = {"soft_votes", *CONTROLS}
COMBINED = {"rm_mean", "rm_worst", "rm_mean_variance", "rm_weights", "rm_iterated"}


def only(name: str) -> Part:
    """Return the only difference of an arm from vanilla DiffRO."""
    (part,) = parts(arms()[name])
    return part


def listed(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_every_arm_is_listed_with_what_it_changes():
    rows = list(csv.DictReader(io.StringIO(listed("--csv"))))
    assert {row["arm"] for row in rows} == {*arms(), *robust_arms(), *guided_arms()}
    assert all(row["what"] and row["off"] for row in rows)
    text = listed()
    assert all(f"{name}\n  " in text for name in arms())


def test_an_arm_is_described_by_the_declarations():
    part = only("focal-loss")
    assert part.name == "focal loss, control of LS"
    assert part.what.startswith("Weight each class of the target")
    assert (part.off, part.knobs) == ("gamma = 0", "gamma = 2 (searched 0 to 5)")
    assert "1708.02002" in part.source
    assert only("reward_bounded").equation.startswith("R = p(e)")
    assert [part.name for part in parts(arms()["ls_adv"])] == ["LS", "Adv"]
    assert [part.name for part in parts(arms()["rm_mean_variance"])] == [
        "members",
        "combination",
        "variance_penalty",
    ]
    assert only("diffro_beta_1e-1").off == "the profile's value"
    assert only("diffro").name == "optimizer diffro"
    assert field_docs(ArmConfig)["beta"] == "Overrides `OptimizeConfig.beta`."


def test_an_optimizer_of_ones_own_is_described_by_its_class():
    choice = Choice(name="diffro", options=(("scale", 2.0),))
    (part,) = parts(ArmConfig(regularizers=OFF, optimizer=choice))
    assert (part.knobs, part.off) == ("scale = 2.0", "optimizer = diffro")


def test_unknown_arms_are_refused():
    result = CliRunner().invoke(app, ["mixap"])
    assert result.exit_code == 2


def test_baselines_have_a_source_and_an_equation():
    for name in robust_arms():
        if name not in ("soft_votes", "rm_iterated") and "beta" not in name:
            assert any(part.source and part.equation for part in parts(robust_arms()[name])), name


@pytest.mark.parametrize("name", robust_arms())
def test_a_robust_arm_changes_its_reward_model_or_its_optimisation_and_not_the_other(name: str):
    vanilla, arm = arms()["diffro"], robust_arms()[name]
    models, runs = zip(*((reward_model(SMOKE, a, 5), optimized(SMOKE, a, 5)) for a in (vanilla, arm)), strict=True)
    if name in FINETUNED | COMBINED:
        assert models[0].key != models[1].key
        assert runs[0].config == runs[1].config
        roles = set(runs[0].inputs) - {"reward_model"}
        assert {role: runs[0].inputs[role].key for role in roles} == {role: runs[1].inputs[role].key for role in roles}
    else:
        assert models[0].key == models[1].key
        changed = {"reward": arm.reward} if arm.beta is None else {"beta": arm.beta}
        assert runs[1].config == replace(runs[0].config, **changed)
