"""Regularizers in a config, and rejected configs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, make_dataclass, replace

import pytest
import torch

from rrpo.config import OFF, RegularizerConfig
from rrpo.identity import canonical, content_hash
from rrpo.plugins import Choice
from rrpo.regularizers import (
    REGULARIZERS,
    Adversarial,
    EnergyMixup,
    LabelSmoothing,
    Regularizer,
    active,
    configured,
    strength,
    switched_on,
)


@dataclass(frozen=True, kw_only=True)
class Added(Regularizer):
    """A regularizer that is not RRPO's own."""

    label = "Added"
    size: float = strength(2.0, off=0.0, search=(0.0, 5.0), limits=(0.0, 9.0))
    width: float = strength(1.0, search=(0.5, 2.0))


@pytest.fixture
def added(no_plugins: Callable[[], None]) -> None:
    REGULARIZERS.register("added", Added())


def test_rrpos_own_are_always_there_with_the_strengths_of_the_config():
    assert active(OFF) == [LabelSmoothing(epsilon=0), EnergyMixup(mix_probability=0), Adversarial(alpha=0)]
    config = RegularizerConfig(epsilon=0.2, mix_db_low=0.0, alpha=0.3, epsilon_adv=0.7, adv_norm="relative")
    adversarial = Adversarial(alpha=0.3, epsilon_adv=0.7, adv_norm="relative")
    assert active(config) == [LabelSmoothing(epsilon=0.2), EnergyMixup(mix_db_low=0.0), adversarial]
    assert list(REGULARIZERS)[:3] == ["ls", "eam", "adv"], "the order in which they act"


def test_the_papers_strengths_and_off_are_the_configs_known_ones():
    on = {name: {} for name, regularizer in REGULARIZERS.items() if regularizer.paper}
    assert configured({}) == configured(on) == RegularizerConfig()
    off = {name: {k.name: k.off for k in r.own_knobs() if k.off is not None} for name, r in REGULARIZERS.items()}
    assert configured(off) == OFF
    assert configured({"ls": {"epsilon": 0.3}}, soft_votes=True) == RegularizerConfig(epsilon=0.3, soft_votes=True)


def test_keys_of_configs_without_a_plugin_are_the_known_ones():
    """The configs from before plugins existed; the key of every stored reward model contains one of these."""
    frozen = {"mix_db_low": -5.0, "mix_db_high": 10.0, "epsilon_adv": 0.5, "adv_norm": "absolute"}
    assert canonical(OFF) == frozen
    assert canonical(RegularizerConfig()) == frozen | {"epsilon": 0.1, "mix_probability": 1.0, "alpha": 0.5}
    assert content_hash(RegularizerConfig()) == "3d6ab2d89e26a3bd60100a2dbab5b9a4"


def test_only_active_regularizers_are_in_the_config(added: None):
    assert configured({"added": {"size": 0, "width": 3}}) == RegularizerConfig()
    config = configured({"ls": {"epsilon": 0.0}, "added": {"size": 1}})
    assert config.added == (Choice(name="added", options=(("size", 1.0), ("width", 1.0))),)
    assert active(config)[3:] == [Added(size=1.0)]
    assert switched_on(config) == ["eam", "adv", "added"]
    assert content_hash(config) != content_hash(RegularizerConfig(epsilon=0.0))
    assert content_hash(config) == content_hash(configured({"ls": {"epsilon": 0.0}, "added": {"size": 1.0}}))


def test_a_changed_plugin_file_is_rejected(added: None):
    config = RegularizerConfig(added=(replace(REGULARIZERS.choice("added"), source="0123"),))
    with pytest.raises(ValueError, match="has changed since the run was planned"):
        active(config)


def test_one_that_is_derived_from_adv_records_its_scalar_under_its_own_name():
    @dataclass(frozen=True, kw_only=True)
    class Mine(Adversarial):
        term = "l_mine"
        scalars = ("delta_of_mine",)

    h, mask = torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    term = Mine().extra(lambda h: h.square().sum((1, 2)), h, mask, torch.empty(2, 0))
    assert term.scalars.keys() == {"delta_of_mine"}


def test_one_that_is_derived_from_rrpos_own_stands_beside_it(no_plugins: Callable[[], None]):
    @dataclass(frozen=True, kw_only=True)
    class Mine(EnergyMixup):
        label = "Mine"
        scalars = ("lambda_of_mine",)

    before = [type(regularizer) for regularizer in active(RegularizerConfig())]
    REGULARIZERS.register("mine", Mine())
    assert [type(regularizer) for regularizer in active(RegularizerConfig())] == before
    assert switched_on(RegularizerConfig()) == ["ls", "eam", "adv"]
    added = configured({"mine": {}})
    assert switched_on(added) == ["ls", "eam", "adv", "mine"]


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"scalars": ("lambda",)}, "records scalars whose names are taken: lambda"),
        ({"scalars": ("step", "twice", "twice")}, "records scalars whose names are taken: step, twice"),
        ({"extra": lambda *_: None}, "has a method extra, which is never called: set term"),
        ({"level": "output"}, "is 'output': use one of hidden, input"),
    ],
)
def test_what_would_fail_after_the_training_is_refused_before(
    no_plugins: Callable[[], None], attributes: dict[str, object], said: str
):
    base = type("Base", (Regularizer,), {"label": "X", **attributes})
    size = ("size", float, strength(1.0, off=0.0, search=(0.0, 2.0)))
    item = make_dataclass("X", [size], bases=(base,), frozen=True, kw_only=True)()
    with pytest.raises(ValueError, match=said):
        REGULARIZERS.register("x", item)


def test_duplicate_labels_and_missing_off_values_are_rejected(added: None):
    with pytest.raises(ValueError, match="already a regularizer labelled 'Added'"):
        REGULARIZERS.register("again", Added(size=3.0))

    @dataclass(frozen=True, kw_only=True)
    class Always(Regularizer):
        label = "Always"
        size: float = strength(2.0, search=(0.0, 5.0))

    with pytest.raises(ValueError, match="cannot be switched off"):
        REGULARIZERS.register("always", Always())
    assert "always" not in REGULARIZERS
    with pytest.raises(ValueError, match="is not a Regularizer"):
        REGULARIZERS.register("always", Added)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the name 'added' is already that of another regularizer"):
        REGULARIZERS.register("added", Added())

    class Undecorated(Regularizer):
        label = "Undecorated"
        gamma: float = strength(2.0, off=0.0, search=(0.0, 5.0))

    with pytest.raises(ValueError, match=r"'undecorated' must be a frozen dataclass(.|\n)*decorate the class"):
        REGULARIZERS.register("undecorated", Undecorated())
    with pytest.raises(ValueError, match=r"size must be finite and within 0 to 9, got 10"):
        configured({"added": {"size": 10}})
