"""A plugin's regularizer measures every arm's trained reward model; the results are added beside the cell."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from rrpo.config import OFF, ArmConfig, RewardModelConfig
from rrpo.corpus.features import SpeechSet
from rrpo.diagnostics import measure
from rrpo.experiment.cell import Cell
from rrpo.judges.config import MeasureConfig
from rrpo.models.reward_model import RewardModel
from rrpo.pipeline.stages import Context
from rrpo.profiles import SMOKE
from rrpo.regularizers import REGULARIZERS, Regularizer, strength


@dataclass(frozen=True, kw_only=True)
class Sized(Regularizer):
    """Measures the norm of the reward model's last layer."""

    label = "Sized"
    measures = ("rm_head_norm",)
    size: float = strength(1.0, off=0.0, search=(0.0, 2.0))

    @staticmethod
    def measure(model: RewardModel, speech: SpeechSet, device: str) -> dict[str, float]:
        return {"rm_head_norm": model.head.weight.norm().item()}


@pytest.fixture
def sized(no_plugins: Callable[[], None]) -> None:
    REGULARIZERS.register("sized", Sized())


def cell() -> Cell:
    return Cell(label="diffro", arm=ArmConfig(regularizers=OFF), seed=1, profile=SMOKE)


def test_it_is_measured_for_arms_without_it_and_changes_no_identity(sized: None, no_plugins: Callable[[], None]):
    with_it = cell()
    (role,) = [role for role in with_it.optional if role.startswith("measured_")]
    assert with_it.optional[role].inputs["model"].key == with_it.stages["examined"].inputs["model"].key
    assert "measure" not in {stage.name for stage in with_it.stages.values()}
    no_plugins()
    without = cell()
    assert without.hash == with_it.hash
    assert not [role for role in without.optional if role.startswith("measured_")]


def test_it_writes_what_was_declared(sized: None, tmp_path: Path, toy_speech: Callable[..., Path]):
    model = RewardModel(RewardModelConfig(dim=16, layers=1, heads=2), ("angry", "happy", "sad"), 8, 1e-5)
    inputs = {"model": tmp_path / "model", "rm_valid": toy_speech(6)}
    inputs["model"].mkdir()
    model.save(inputs["model"])
    config = MeasureConfig(regularizer=REGULARIZERS.choice("sized"))
    measure.build(config, inputs, tmp_path, Context())
    scalars = json.loads((tmp_path / "scalars.json").read_text())
    assert scalars == {"rm_head_norm": pytest.approx(model.head.weight.detach().norm().item())}


def test_undeclared_measures_are_rejected(
    sized: None, tmp_path: Path, toy_speech: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    RewardModel(RewardModelConfig(dim=16, layers=1, heads=2), ("angry", "happy", "sad"), 8, 1e-5).save(tmp_path)
    monkeypatch.setattr(Sized, "measures", ("rm_other",))
    config = MeasureConfig(regularizer=REGULARIZERS.choice("sized"))
    with pytest.raises(ValueError, match="declares the measures rm_other, but measured rm_head_norm"):
        measure.build(config, {"model": tmp_path, "rm_valid": toy_speech(6)}, tmp_path, Context())
