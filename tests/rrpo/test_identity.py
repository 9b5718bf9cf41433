"""A key contains every value except options that are off, and no name of a class, function or module."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rrpo.config import OFF, ArmConfig, RegularizerConfig, RewardModelConfig
from rrpo.experiment.cell import Cell
from rrpo.identity import canonical, content_hash, described, option
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Stage, walk
from rrpo.plugins import Choice
from rrpo.profiles import SMOKE, Profile

SEED = 1000


@dataclass(frozen=True, kw_only=True)
class Known:
    """A config with every kind of field."""

    rate: float = 0.1
    strength: float = option(0.5, off=0.0)
    weight: float | None = option(None, off=None)
    path: str = field(default="here", metadata={"identity": False})


def extended(config: Any, **added: Any) -> Any:
    """Return the config as an instance of a class with more fields, at their defaults."""
    kind = make_dataclass(
        "Extended",
        [(name, type(default.default), default) for name, default in added.items()],
        bases=(type(config),),
        frozen=True,
        kw_only=True,
        eq=type(config).__eq__ is not object.__eq__,
    )
    return kind(**{f.name: getattr(config, f.name) for f in fields(config)})


def cell(profile: Profile = SMOKE, arm: ArmConfig | None = None) -> Cell:
    return Cell(label="rrpo", arm=arm or ArmConfig(), seed=SEED, profile=profile)


def keys(cell: Cell) -> list[str]:
    return [stage.key for stage in walk(*cell.stages.values())]


SECTIONS = sorted(f.name for f in fields(Profile) if is_dataclass(getattr(SMOKE, f.name)) and f.name != "card")
"""Configs of a profile that stages use; those of the validation report are not part of any cell."""
OPTIONAL = {"third_judge", "vocode", "speakers", "predictor", "naturalness", "prefix_classifier", "zero_shot"}
"""Configs that are not part of this cell's identity: those of optional packages' stages, of guided decoding and of unseen
speakers."""


@pytest.mark.parametrize("section", SECTIONS)
def test_an_option_that_is_off_by_default_leaves_every_finished_stage_done(section: str) -> None:
    config = extended(getattr(SMOKE, section), noise=option(0.0, off=0.0))
    assert "noise" not in canonical(config)
    again = cell(replace(SMOKE, **{section: config}))
    assert keys(again) == keys(cell())
    assert (again.hash, again.arm_hash, again.world_hash) == (cell().hash, cell().arm_hash, cell().world_hash)


@pytest.mark.parametrize("section", sorted(set(SECTIONS) - OPTIONAL))
@pytest.mark.parametrize("added", [option(1.0, off=0.0), field(default=0.0)], ids=["on", "no option"])
def test_an_option_that_is_on_and_a_field_that_is_none_make_another_cell(section: str, added: Any) -> None:
    assert cell(replace(SMOKE, **{section: extended(getattr(SMOKE, section), noise=added)})).hash != cell().hash


def test_options_of_arms_and_regularisers_are_left_out_too() -> None:
    off, on = ({"noise": option(value, off=0.0)} for value in (0.0, 1.0))
    arm = ArmConfig(regularizers=extended(RegularizerConfig(), **off))
    assert keys(cell(arm=extended(arm, **off))) == keys(cell())
    assert cell(arm=extended(arm, **off)).hash == cell().hash
    assert cell(arm=extended(arm, **off)).arm_hash == cell().arm_hash
    assert cell(arm=ArmConfig(regularizers=extended(RegularizerConfig(), **on))).hash != cell().hash
    assert cell(arm=extended(ArmConfig(), **on)).arm_hash != cell().arm_hash


def test_a_changed_default_never_passes_for_the_old_one() -> None:
    """For a plain field, and for an option, whose off value does not change."""
    for changed in ({"rate": field(default=0.2)}, {"strength": option(0.6, off=0.0)}):
        assert content_hash(extended(Known(), **changed)) == content_hash(Known())  # `extended` keeps the values
        ((name, default),) = changed.items()
        other = make_dataclass("Known", [(name, float, default)], bases=(Known,), frozen=True, kw_only=True)
        assert content_hash(other()) != content_hash(Known())
        assert content_hash(other(**{name: getattr(Known(), name)})) == content_hash(Known())


def test_what_is_left_out_by_hand() -> None:
    assert canonical(Known()) == {"rate": 0.1, "strength": 0.5}
    assert canonical(Known(rate=0.0, strength=0.0, weight=0.0, path="there")) == {"rate": 0.0, "weight": 0.0}
    assert described(Known(strength=0.0)) == {"rate": 0.1, "strength": 0.0, "weight": None}
    assert canonical([{"b": (Known(strength=0.0),), "a": 1}]) == [{"a": 1, "b": [{"rate": 0.1}]}]


def test_an_override_that_is_none_is_no_override_and_zero_is_one() -> None:
    assert content_hash(Known(weight=None)) == content_hash(Known())
    assert content_hash(Known(weight=0.0)) != content_hash(Known())
    optional = [f.name for f in fields(ArmConfig) if getattr(ArmConfig(), f.name) is None]
    assert set(canonical(ArmConfig())).isdisjoint(optional)
    explicit = ArmConfig(lr=SMOKE.optimize.lr, content_weight=SMOKE.optimize.content_weight, tau=SMOKE.optimize.tau)
    assert keys(cell(arm=explicit)) == keys(cell())
    assert keys(cell(arm=ArmConfig(content_weight=0.0))) != keys(cell())


def test_a_moved_or_renamed_config_has_the_same_key() -> None:
    here, there = (
        make_dataclass(name, [("rate", float, 0.1)], frozen=True, namespace={"__module__": module})
        for name, module in (("Rates", "rrpo.config"), ("Speeds", "elsewhere.speeds"))
    )
    assert content_hash(here()) == content_hash(there())


def moved(stage: Stage) -> Stage:
    """The same stage, with its build functions and those of all its inputs in another module under another name."""
    return Stage(
        stage.name, "elsewhere:make", stage.config, {role: moved(child) for role, child in stage.inputs.items()}
    )


def test_no_stage_of_a_cell_depends_on_a_module() -> None:
    roots = list(cell().stages.values())
    assert [stage.key for stage in walk(*map(moved, roots))] == [stage.key for stage in walk(*roots)]
    for stage in walk(*roots):
        assert not [text for text in strings(canonical(stage.config)) if "rrpo" in text]


def strings(tree: Any) -> Iterator[str]:
    """Return all keys and texts of a JSON-able value."""
    if isinstance(tree, dict):
        yield from tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for child in tree:
            yield from strings(child)
    elif isinstance(tree, str):
        yield tree


@pytest.mark.parametrize(
    "regularizers",
    [
        OFF,
        RegularizerConfig(),
        RegularizerConfig(alpha=0.0, epsilon=0.2),
        RegularizerConfig(soft_votes=True),
        RegularizerConfig(added=(Choice(name="x", options=(("count", 2), ("size", 0.5)), source="0123"),)),
    ],
    ids=["off", "default", "alpha off", "soft votes", "plugin"],
)
def test_a_stored_reward_model_comes_back_with_what_it_was_trained_with(
    tmp_path: Path, regularizers: RegularizerConfig
) -> None:
    """The file includes options that are off: an omitted value would be read as the default."""
    config = RewardModelConfig(dim=8, layers=1, heads=2)
    RewardModel(config, ("a", "b"), 4, 1e-5, regularizers).save(tmp_path)
    loaded = RewardModel.load(tmp_path)
    assert (loaded.regularizers, loaded.config) == (regularizers, config)


@pytest.mark.parametrize("kind", [RegularizerConfig, ArmConfig])
def test_described_holds_every_field_as_json(kind: type[Any]) -> None:
    tree = json.loads(json.dumps(described(kind())))
    assert set(tree) == {f.name for f in fields(kind)}
