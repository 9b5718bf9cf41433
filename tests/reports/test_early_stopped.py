"""Early stopping, computed from finished runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from synthetic import Fake

from reports import early_stopped
from reports.loading import Selection


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        ([0.5, 0.9, 0.7], 1),
        ([0.5, 0.9, 0.9], 1),
        ([math.nan, 0.2, math.nan], 1),
        ([math.nan, math.nan], None),
        ([], None),
    ],
)
def test_the_best_checkpoint_is_kept_and_of_equals_the_earliest(
    accuracy: Sequence[float], expected: int | None
) -> None:
    points = pd.DataFrame({"step": range(len(accuracy)), "val_accuracy": np.array(accuracy, float)})
    assert early_stopped.selected(Fake("diffro", 1, points)) == expected


def test_every_arm_is_read_at_the_checkpoint_that_val_keeps() -> None:
    """Update 10 is selected for seed 1 (gold .8), update 0 for seed 2 (gold .6); SFT and best-of-n have no training to stop."""

    def record(label: str, seed: int, val: list[float], gold: list[float]) -> Fake:
        steps = [10 * k for k in range(len(val))]
        points = pd.DataFrame({"step": steps, "val_accuracy": val, "test_accuracy": gold})
        cell = Fake(label, seed, points)
        cell.__dict__["config"] = {"arm.best_of": "16" if label == "best_of_16" else "null"}
        return cell

    records = (
        record("sft", 1, [0.5], [0.5]),
        record("diffro", 1, [0.5, 0.9, 0.7], [0.5, 0.8, 0.3]),
        record("diffro", 2, [0.9, 0.8, 0.7], [0.6, 0.9, 0.9]),
        record("best_of_16", 1, [0.5, 0.7], [0.5, 0.6]),
    )
    sheet = early_stopped.sheet(Selection("x", records, {"sft": 1, "diffro": 2, "best_of_16": 1}, ()))
    assert sheet is not None
    assert [row[0] for row in sheet.rows] == ["diffro"]
    row = sheet.row("diffro")
    assert row["step"].mean == 5.0  # type: ignore[union-attr]
    assert row["gold"].mean == pytest.approx(0.7)  # type: ignore[union-attr]
    assert row["gold"].n == 2  # type: ignore[union-attr]
    assert early_stopped.sheet(Selection("x", records[:1], {"sft": 1}, ())) is None
