"""Over-optimization: the peak, the loss after it, gamma, and diverged or collapsed seeds, computed by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from synthetic import Fake, record

from ablations.stats.inference import wilson
from reports.loading import Selection
from reports.overoptimisation import collapses, sheet


def test_peak_loss_and_divergence_by_hand():
    curves = {("diffro", 1): [0.5, 0.9, 0.6], ("diffro", 2): [0.5, 0.7, 0.7], ("sft", 1): [0.5]}
    records = tuple(Fake(arm, seed, pd.DataFrame({"test_accuracy": gold})) for (arm, seed), gold in curves.items())
    lost = {("diffro", 3): "diverged"}
    table = sheet(Selection("x", records, {"sft": 1, "diffro": 3}, (), lost=lost))
    assert table is not None
    assert [row[0] for row in table.rows] == ["diffro"], "SFT does not move"
    row = table.row("diffro")
    assert row["peak"].mean == pytest.approx(0.8)  # type: ignore[union-attr]
    assert row["lost"].mean == pytest.approx(0.15)  # type: ignore[union-attr]
    assert row["diverged"] == wilson(1, 3)
    assert row["gamma"].n == 0, "no proxy was recorded"  # type: ignore[union-attr]
    assert row["reward_variance"].n == 0, "nor were samples"  # type: ignore[union-attr]
    assert sheet(Selection("x", records[2:], {"sft": 1}, ())) is None


def test_a_collapse_is_below_a_third_of_sft_and_a_diverged_seed_is_one():
    """The SFT policy's clean success is .6: below .2 is a collapse."""
    records = tuple(record("diffro", seed, clean) for seed, clean in ((1, 0.19), (2, 0.21), (3, 0.7)))
    selection = Selection("x", records, {"diffro": 4}, (), lost={("diffro", 4): "missing"})
    assert collapses(selection, "diffro") == (wilson(1, 3), 0.19, 1.0)
    broken = Selection("x", records, {"diffro": 4}, (), lost={("diffro", 4): "diverged"})
    assert collapses(broken, "diffro") == (wilson(2, 4), 0.0, 4.0)
    share, worst, seed = collapses(selection, "rrpo")
    assert share.n == 0
    assert math.isnan(worst)
    assert math.isnan(seed)
