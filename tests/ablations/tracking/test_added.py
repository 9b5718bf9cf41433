"""Tables by checkpoint that only some cells have: of optional listeners, and of judges that plugins register."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from ablations.execution.runs_folder import RunsFolder
from ablations.tracking import records
from ablations.tracking.outbox import Entry, now
from ablations.tracking.replay import Replay


def test_listeners_come_first_and_the_records_own_tables_are_none(tmp_path: Path) -> None:
    for name in ("zeta", "voice", "alpha", "phonetics", "test"):
        (tmp_path / f"{name}_points.parquet").touch()
    (tmp_path / "points.parquet").touch()
    assert records.added(tmp_path) == ["phonetics", "voice", "alpha", "zeta"]


def test_their_columns_are_metrics_by_checkpoint_under_their_name(tmp_path: Path) -> None:
    pd.DataFrame({"step": [0, 7], "alpha_accuracy": [0.25, 0.5]}).to_parquet(tmp_path / "alpha_points.parquet")
    told: list[tuple[str, float, int]] = []

    def log_batch(run: str, params: list, metrics: list) -> None:
        told.extend((metric.key, metric.value, metric.step) for metric in metrics)

    replay = Replay(RunsFolder(tmp_path))
    replay.__dict__["client"] = SimpleNamespace(log_batch=log_batch)
    entry = Entry(key="k", grid="g", name="n", started=now(), tags={})
    replay._batches("run", entry, tmp_path)
    assert told == [("checkpoint_alpha/alpha_accuracy", 0.25, 0), ("checkpoint_alpha/alpha_accuracy", 0.5, 7)]
