"""Tables by checkpoint that only some cells have: those of optional listeners and of plugin judges."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ablations.tracking import records
from ablations.tracking.curves import stored


def test_listeners_come_first_and_the_records_own_tables_are_none(tmp_path: Path) -> None:
    for name in ("zeta", "voice", "alpha", "phonetics", "test"):
        (tmp_path / f"{name}_points.parquet").touch()
    (tmp_path / "points.parquet").touch()
    assert records.added(tmp_path) == ["phonetics", "voice", "alpha", "zeta"]


def test_the_accuracy_by_a_plugins_judge_is_a_metric_by_checkpoint(tmp_path: Path) -> None:
    table = pd.DataFrame({"step": [0, 7], "alpha_accuracy": [0.25, 0.5], "alpha_logprob": [-1.0, -0.5]})
    table.to_parquet(tmp_path / "alpha_points.parquet")
    assert stored(tmp_path) == [("evaluation/alpha_accuracy", 0.25, 0), ("evaluation/alpha_accuracy", 0.5, 7)]
