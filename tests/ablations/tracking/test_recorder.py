"""Tags of a run."""

from __future__ import annotations

import getpass
import os

import pytest

from ablations.grids import arms
from ablations.tracking.recorder import datasets, source_tags
from rrpo.experiment import dataflow
from rrpo.experiment.cell import Cell
from rrpo.profiles import SMOKE


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_a_user_without_a_name_is_recorded_by_number(monkeypatch: pytest.MonkeyPatch, error: type[Exception]):
    def getuser() -> str:
        raise error("uid not found")

    monkeypatch.setattr(getpass, "getuser", getuser)
    assert source_tags({})["mlflow.user"] == str(os.getuid())


@pytest.mark.parametrize("name", ["sft", "pretrained", "rrpo", "oracle", "diffro_scaled", "rm_worst", "zet"])
def test_the_datasets_of_a_cell_are_its_own_reward_model_and_the_policy_that_it_started_from(name: str) -> None:
    arm = arms()[name]
    recorded = datasets(Cell(label=name, arm=arm, seed=1, profile=SMOKE))
    assert recorded["reward model"] == dataflow.reward_model(SMOKE, arm, 1).key[:16]
    assert recorded["SFT policy"] == dataflow.starting_policy(SMOKE, arm, 1).key[:16]
