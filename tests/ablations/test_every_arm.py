"""Every registered arm runs to its record, on a handful of utterances and updates."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny import TINY

from ablations.grids import arms
from rrpo.experiment.cell import Cell, collect
from rrpo.pipeline.stages import Context, materialise

SEED = 1000
UPDATES = 4
PROFILE = replace(
    TINY,
    finetune=replace(TINY.finetune, steps=3),
    prefix_classifier=replace(TINY.prefix_classifier, steps=3, dim=16),
    optimize=replace(TINY.optimize, steps=UPDATES, checkpoints=(0, 2), eval_prompts=4, final_prompts=6),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder for all arms, which share their world."""
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("store")


@pytest.mark.long
@pytest.mark.parametrize("name", arms())
def test_it_runs(name: str, store: Path):
    """Its outcomes are finite. An updated policy differs from SFT; one without updates has no curves."""
    arm = arms()[name]
    cell = Cell(label=name, arm=arm, seed=SEED, profile=PROFILE)
    for stage in cell.stages.values():
        materialise(stage, store, Context())
    scalars, files = collect(cell.stages, store)
    assert {"rm_accuracy_valid", "rm_pgd_accuracy_0.1", "end_proxy_accuracy", "end_test_accuracy"} <= scalars.keys()
    assert all(math.isfinite(value) for value in scalars.values())
    points, curves = (pd.read_parquet(files[f"{table}.parquet"]) for table in ("points", "curves"))
    decoded = arm.guidance is not None or arm.best_of is not None
    updated = not decoded and arm.steps != 0
    assert len(curves) == (UPDATES if updated else 0)
    assert (len(points) > 1) == (updated or arm.best_of is not None)
    assert (scalars["end_kl_token"] > 0) == (updated or decoded)
