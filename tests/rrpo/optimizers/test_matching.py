"""The gradient of one reward model is scaled to the size of another's, by their predictions for the same swaps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from rrpo.config import OFF, ArmConfig
from rrpo.experiment import dataflow
from rrpo.optimizers.matching import OWN, TABLE, WANTED, gradient_size, match
from rrpo.profiles import SMOKE


def swaps(folder: Path, *many: float) -> Path:
    """Write a finished ``fidelity`` stage: these predictions for swaps of many tokens, and huge ones for swaps of one."""
    folder.mkdir()
    pd.DataFrame({"kind": ["one"] + ["many"] * len(many), "predicted": [100.0, *many]}).to_parquet(folder / TABLE)
    return folder


def test_the_size_is_the_root_mean_square_over_swaps_of_many_tokens(tmp_path: Path) -> None:
    assert gradient_size(pd.read_parquet(swaps(tmp_path / "a", 3.0, -4.0, 0.0, 0.0) / TABLE)) == 2.5


def test_the_factor_makes_the_own_gradient_as_large_as_the_wanted_one(tmp_path: Path) -> None:
    inputs = {OWN: swaps(tmp_path / "own", 3.0, -4.0), WANTED: swaps(tmp_path / "wanted", 6.0, 8.0)}
    assert match(inputs) == {"gradient_match": 2.0}
    assert match({OWN: inputs[OWN]}) == {}, "no arm but the one that matches reads the other's"


@pytest.mark.parametrize(("own", "wanted"), [(0.0, 1.0), (1.0, float("nan"))])
def test_gradients_that_cannot_be_matched_are_rejected(tmp_path: Path, own: float, wanted: float) -> None:
    with pytest.raises(ValueError, match=r"got .* set gradient_scale"):
        match({OWN: swaps(tmp_path / "own", own), WANTED: swaps(tmp_path / "wanted", wanted)})


def test_only_the_matching_arm_reads_the_two_and_all_else_is_vanillas() -> None:
    vanilla = ArmConfig(regularizers=OFF)
    plain = dataflow.optimized(SMOKE, vanilla, 1)
    scaled = dataflow.optimized(SMOKE, replace(vanilla, match_gradient=True), 1)
    assert scaled.config == plain.config
    assert {role: stage.key for role, stage in scaled.inputs.items() if role in plain.inputs} == {
        role: stage.key for role, stage in plain.inputs.items()
    }
    assert {role: scaled.inputs[role].key for role in scaled.inputs.keys() - plain.inputs.keys()} == {
        OWN: dataflow.fidelity(SMOKE, vanilla, 1).key,
        WANTED: dataflow.fidelity(SMOKE, ArmConfig(), 1).key,
    }
