"""Every arm that makes the reward robust by other means runs to its record, on a handful of utterances and steps."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny import TINY

from ablations.robust_arms import robust_arms
from rrpo.pipeline.cell import Cell, collect
from rrpo.pipeline.stages import Context, materialise

SEED = 1000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all arms, which share their world."""
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("store")


@pytest.mark.long
@pytest.mark.parametrize("name", robust_arms())
def test_it_runs(name: str, store: Path):
    cell = Cell(label=name, arm=robust_arms()[name], seed=SEED, profile=TINY)
    for stage in cell.stages.values():
        materialise(stage, store, Context())
    scalars, _ = collect(cell.stages, store)
    assert {"rm_accuracy_valid", "rm_pgd_accuracy_0.1", "end_proxy_accuracy", "end_test_accuracy"} <= scalars.keys()
    assert all(math.isfinite(value) for value in scalars.values())
