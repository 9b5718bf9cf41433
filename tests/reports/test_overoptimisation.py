"""Over-optimisation: the peak, what is lost after it, and seeds that diverged, by hand."""

from __future__ import annotations

import pandas as pd
import pytest
from test_tables import Fake

from ablations.inference import wilson
from reports.overoptimisation import sheet
from reports.store import Selection


def test_peak_loss_and_divergence_by_hand():
    curves = {("diffro", 1): [0.5, 0.9, 0.6], ("diffro", 2): [0.5, 0.7, 0.7], ("sft", 1): [0.5]}
    records = tuple(
        Fake(arm, seed, pd.DataFrame({"test_accuracy": gold}), scalars={}) for (arm, seed), gold in curves.items()
    )
    lost = {("diffro", 3): "diverged"}
    made = sheet(Selection("x", records, {"sft": 1, "diffro": 3}, (), lost=lost))
    assert made is not None
    assert [row[0] for row in made.rows] == ["diffro"], "SFT does not move"
    row = made.row("diffro")
    assert row["peak"].mean == pytest.approx(0.8)  # type: ignore[union-attr]
    assert row["lost"].mean == pytest.approx(0.15)  # type: ignore[union-attr]
    assert row["diverged"] == wilson(1, 3)
    assert sheet(Selection("x", records[2:], {"sft": 1}, ())) is None
