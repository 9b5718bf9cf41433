"""Read all runs of a kind from a local store with four SQL queries, without importing MLflow.

For a finished grid of 1,000 cells, a command takes 0.9 s of CPU time, compared with 4.9 s using MLflow's import and search. The
queries use MLflow's tables, whose layout has not changed since version 1. Servers are read through the MLflow client.
"""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from ablations.tracking.records import TAG_KIND

TIMEOUT = 30.0
"""Seconds to wait while another process writes."""
INFO = ("run_id", "start_time", "end_time", "status", "artifact_uri", "run_name")
"""Fields of MLflow's ``RunInfo`` that are read."""


def read(database: Path, experiments: Sequence[str], kind: str) -> list[Any]:
    """Return all runs of a kind (`records.TAG_KIND`) in the named experiments, oldest first, shaped like MLflow's ``Run``."""
    marks = ",".join("?" * len(experiments))
    selected_runs = (
        "SELECT runs.run_uuid FROM runs JOIN experiments USING (experiment_id) JOIN tags ON tags.run_uuid = runs.run_uuid "
        f"WHERE experiments.name IN ({marks}) AND runs.lifecycle_stage = 'active' AND tags.key = '{TAG_KIND}' AND tags.value = ?"
    )
    data: dict[str, Any] = defaultdict(lambda: SimpleNamespace(tags={}, params={}, metrics={}))
    with closing(_connect(database)) as connection:
        connection.execute("BEGIN")  # all queries see the same snapshot

        def query(columns: str, table: str, order: str = "") -> Any:
            statement = f"SELECT {columns} FROM {table} WHERE run_uuid IN ({selected_runs}) {order}"
            return connection.execute(statement, (*experiments, kind))

        infos = query(
            "run_uuid, start_time, end_time, status, artifact_uri, name", "runs", "ORDER BY start_time, run_uuid"
        ).fetchall()
        for run, key, value in query("run_uuid, key, value", "tags"):
            data[run].tags[key] = value
        for run, key, value in query("run_uuid, key, value", "params"):
            data[run].params[key] = value
        for run, key, value, is_nan in query("run_uuid, key, value, is_nan", "latest_metrics"):
            data[run].metrics[key] = math.nan if is_nan else value
    return [
        SimpleNamespace(info=SimpleNamespace(**dict(zip(INFO, row, strict=True))), data=data[row[0]]) for row in infos
    ]


def experiments(database: Path) -> list[str]:
    """Return the names of all experiments that are not deleted."""
    with closing(_connect(database)) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM experiments WHERE lifecycle_stage = 'active'")]


def experiment_id(database: Path, name: str) -> str:
    """Return the id of the experiment with that name; empty if there is none."""
    with closing(_connect(database)) as connection:
        row = connection.execute("SELECT experiment_id FROM experiments WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row else ""


def any_running(database: Path) -> bool:
    """Return whether any run has the status RUNNING, even if its process is dead."""
    with closing(_connect(database)) as connection:
        return connection.execute("SELECT 1 FROM runs WHERE status = 'RUNNING' LIMIT 1").fetchone() is not None


def _connect(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, timeout=TIMEOUT)
