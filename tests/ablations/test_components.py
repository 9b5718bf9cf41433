"""Arms made from the list of components: names, strengths, and the effect of a fourth component."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import pytest

from ablations.components import COMPONENTS, Component, factorial, singles, subsets
from ablations.grids import arms, loo
from ablations.stats.contrasts import component_of, corner_effects, interactions, main_effects
from ablations.stats.family import family
from rrpo.arms import ARMS, name_of, paper_regularizers, regularizers
from rrpo.config import OFF, RegularizerConfig
from rrpo.errors import InputError
from rrpo.profiles import SMOKE
from rrpo.regularizers import REGULARIZERS, Regularizer, strength, switched_on


@dataclass(frozen=True, kw_only=True)
class Fourth(Regularizer):
    """A component outside the paper."""

    label = "X"
    size: float = strength(2.0, off=0.0, search=(0.0, 5.0), limits=(0.0, 9.0))
    width: float = strength(1.0, search=(0.5, 2.0))


@pytest.fixture
def fourth(no_plugins: Callable[[], None]) -> Component:
    """Register a component outside the paper for the duration of a test."""
    REGULARIZERS.register("x", Fourth())
    return COMPONENTS[-1]


def test_the_papers_components_are_the_configs_defaults_and_all_off_is_off():
    assert regularizers(paper_regularizers()) == RegularizerConfig()
    assert regularizers(()) == OFF
    known = {field.name for field in fields(RegularizerConfig)}
    for component in COMPONENTS:
        assert component.regularizer.on_values.keys() == component.regularizer.off_values.keys() <= known
        assert switched_on(regularizers([component.name])) == [component.name]
        knobs = {knob.name: knob.on for knob in component.knobs}
        assert dict(component.strengths(knobs)).items() >= component.regularizer.on_values.items(), (
            "the first trial is the arm"
        )


def test_rrpo_is_the_papers_three_whatever_else_there_is(fourth: Component):
    assert name_of(["adv", "ls", "eam"]) == "rrpo"
    assert name_of(["x", "adv", "ls", "eam"]) == "rrpo_x"
    assert name_of(["x"]) == "x"
    assert name_of(["x", "ls"]) == "ls_x"
    assert name_of([]) == "diffro"
    assert len(set(factorial())) == 16 == len(subsets())
    assert singles() == ["diffro", "ls", "eam", "adv", "x", "rrpo"]
    assert arms()["rrpo"].regularizers == RegularizerConfig()
    (added,) = arms()["x"].regularizers.added
    assert (added.name, added.options) == ("x", (("size", 2.0), ("width", 1.0)))
    assert arms()["x"].regularizers == replace(OFF, added=(added,))
    assert arms()["rrpo_x"].regularizers == RegularizerConfig(added=(added,))
    assert arms()["diffro"].regularizers == OFF
    assert switched_on(arms()["ls_x"].regularizers) == ["ls", "x"]


def test_an_arm_with_the_name_of_a_combination_is_refused(fourth: Component):
    """`rrpo_x` would be compared as RRPO with the fourth component."""
    ARMS.register("rrpo_x", arms()["rrpo_x"])
    assert len(factorial()) == 16, "the same arm"
    ARMS._items["rrpo_x"] = replace(arms()["rrpo"], beta=0.1)
    with pytest.raises(InputError, match=r"an arm has the name of a combination of regularizers\n  got: rrpo_x"):
        factorial()


def test_contrasts_follow_the_list(fourth: Component):
    assert list(main_effects())[-1] == "X, main effect"
    assert sorted(main_effects()["X, main effect"].values()) == [-1 / 8] * 8 + [1 / 8] * 8
    assert corner_effects()["X, in RRPO"] == {"rrpo_x": 1.0, "rrpo": -1.0}
    assert corner_effects()["LS, in RRPO"] == {"rrpo": 1.0, "eam_adv": -1.0}
    assert len(interactions()) == 6 + 4 + 1
    assert component_of("X, main effect") == fourth
    assert component_of("LS x X") is None
    assert list(family()) == [
        "LS, main effect",
        "EAM, main effect",
        "Adv, main effect",
        "X, main effect",
        "LS, in RRPO",
        "EAM, in RRPO",
        "Adv, in RRPO",
        "X, in RRPO",
        "RRPO - DiffRO",
    ]
    labels = [cell.label for cell in loo(SMOKE, [1])]
    assert labels == ["sft", "diffro", "eam_adv", "ls_adv", "ls_eam", "rrpo_x", "rrpo"]
