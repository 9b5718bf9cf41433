"""The declared family, as a function of the components and the available arms."""

from __future__ import annotations

from ablations.components import factorial, singles
from ablations.grids import full, loo
from ablations.stats.family import allowed, declared, family, primary
from rrpo.profiles import SMOKE

LOO = ["LS, in RRPO", "EAM, in RRPO", "Adv, in RRPO", "RRPO - DiffRO"]
ALONE = ["LS, added to DiffRO", "EAM, added to DiffRO", "Adv, added to DiffRO", "RRPO - DiffRO"]


def test_three_components_have_a_family_of_seven_and_the_outcome_is_by_samples():
    assert len(family()) == 7
    assert family()["LS, in RRPO"] == {"rrpo": 1.0, "eam_adv": -1.0}
    assert (primary().name, primary().direction) == ("clean_success", 1)


def test_arms_allow_a_part_of_it():
    assert list(allowed({cell.label for cell in full(SMOKE, [1])})) == list(family())
    assert list(allowed({cell.label for cell in loo(SMOKE, [1])})) == LOO
    assert list(allowed(["diffro", "rrpo"])) == ["RRPO - DiffRO"]
    assert list(allowed(singles())) == ALONE
    assert allowed(["sft", "diffro"]) == {}
    assert list(allowed([arm for arm in factorial() if arm != "ls"])) == LOO, "no main effect without one arm"


def test_settings_share_what_their_arms_share():
    labels = [f"{arm}@a" for arm in factorial()] + [f"{arm}@b" for arm in singles()]
    by_setting = declared(["sft", "diffro", "rrpo", *labels])
    assert {setting: list(contrasts) for setting, contrasts in by_setting.items()} == {
        "": ["RRPO - DiffRO"],
        "a": ALONE,
        "b": ALONE,
    }
    assert declared([]) == {}
