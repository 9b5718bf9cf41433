"""The checkpoint that early stopping would have kept."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ablations.early import best_checkpoint


@pytest.mark.parametrize(
    ("accuracies", "step"),
    [
        ([0.5, 0.8, 0.7], 20),
        ([0.5, 0.8, 0.8], 20),
        ([0.9, 0.8, 0.8], 0),
        ([0.5, np.nan, 0.6], 60),
    ],
)
def test_the_best_by_val_and_of_equal_ones_the_earliest(accuracies: list[float], step: int) -> None:
    points = pd.DataFrame({"step": [0, 20, 60], "val_accuracy": accuracies, "test_accuracy": [0.1, 0.2, 0.9]})
    assert best_checkpoint(points) == step
    assert best_checkpoint(points.iloc[::-1].reset_index(drop=True)) == step


def test_points_that_val_never_judged_are_refused() -> None:
    with pytest.raises(ValueError, match="give the points of a cell with a policy"):
        best_checkpoint(pd.DataFrame({"step": [0, 1], "val_accuracy": [np.nan, np.nan]}))
