"""What a search builds before its trials: what they share and nobody has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rrpo.experiment import world
from rrpo.pipeline import stages
from rrpo.pipeline.stages import MARKER
from rrpo.profiles import SMOKE
from studies.preview import shared
from studies.search import Search
from studies.trial import OBJECTIVES, TrialSpec


def test_what_only_installed_stages_read_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "LAYER", tmp_path / "layer")
    spec = TrialSpec(profile=SMOKE, store=tmp_path / "runs", seeds=(1000,), objectives=tuple(OBJECTIVES)[:1])
    search = Search(study="regularizers", name="s", spec=spec, trials=2)
    before = {stage.folder for stage in shared(search)}
    judge = world.judge(SMOKE, "val")
    (stages.LAYER / judge.folder).mkdir(parents=True)
    (stages.LAYER / judge.folder / MARKER).write_text("{}")
    judge_inputs = {judge.inputs[role].folder for role in ("speech", "heldout")}
    assert judge_inputs < before
    assert before - {stage.folder for stage in shared(search)} == judge_inputs | {judge.folder}
    shutil.rmtree(stages.LAYER)
    assert {stage.folder for stage in shared(search)} == before
