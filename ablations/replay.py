"""Carry the spool's entries over to the tracking store: each run once, however often it is tried and by whoever."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from ablations import records
from ablations.artifacts import locate
from ablations.connection import WAIT, answering, ensure_experiment, open_client, said, trouble
from ablations.runs_folder import RunsFolder
from ablations.spool import ARTIFACTS, Entry, Spool

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 1000
"""MLflow's limit of metrics a batch; its limit of params and tags is a tenth."""
PAUSE = 30.0
"""Seconds without another try after the store did not answer, so that a dead one costs little."""


@dataclass
class Replay:
    """Writes what waits in one runs folder's spool; a store that does not answer leaves it waiting."""

    folder: RunsFolder
    """Whose spool."""
    why: dict[str, str] = field(default_factory=dict)
    """Key -> why the entry still waits, of the last try."""
    _ids: dict[str, str] = field(default_factory=dict)
    _experiments: dict[str, str] = field(default_factory=dict)
    _next: float = 0.0

    @property
    def spool(self) -> Spool:
        """The journal."""
        return Spool(self.folder.spool)

    @cached_property
    def client(self) -> MlflowClient:
        """The MLflow client; asked for only once the store has answered."""
        return open_client(self.folder)

    def run_id(self, key: str) -> str:
        """The run that an entry became by this object's doing, or empty."""
        return self._ids.get(key, "")

    def artifacts(self, entry: Entry) -> Path:
        """Where an entry's artifacts lie now: in the spool, or where the store keeps the run's."""
        if place := self.spool.place(entry.key):
            return place / ARTIFACTS
        with answering(self.folder):
            run = self.run_id(entry.key) or self._find(self._experiment(entry.grid), records.TAG_ENTRY, entry.key)
            return locate(self.folder, run, self.client.get_run(run).info.artifact_uri)

    def carry(self, *, force: bool = False, wait: float = WAIT) -> None:
        """Write every waiting entry, oldest first. Never raises for the store's sake: what cannot be written waits.

        ``force`` tries a store that has just failed; ``wait`` is how long another process may be at it.
        """
        if not self.folder.spool.is_dir() or (time.monotonic() < self._next and not force):
            return
        try:
            with self.spool.lock(wait):
                self.spool.sweep()
                self._carry()
        except Timeout:
            return  # whoever holds it carries ours too

    def _carry(self) -> None:
        self.why = {}
        waiting = self.spool.pending()
        down = trouble(self.folder) if waiting else ""
        for place, entry in waiting.items():
            if not down:
                try:
                    self._ids[entry.key] = run = self._write(entry, place)
                    self.spool.remove(place, self.folder.cache / run if self.folder.server and entry.complete else None)
                    continue
                except Exception as error:  # a cell never dies of tracking, whatever the store does
                    self.why[entry.key] = said(self.folder, error)
                    down = trouble(self.folder)
            if down:
                self._next = time.monotonic() + PAUSE
                self.why[entry.key] = down

    def _write(self, entry: Entry, place: Path) -> str:
        """Make the run what the entry says, going on with one that was cut off; its id."""
        experiment = self._experiment(entry.grid)
        run = self._ids.get(entry.key, "")
        if not run:
            same = records.TAG_COMPLETE if entry.complete else records.TAG_ENTRY
            done = self._find(experiment, same, entry.complete or entry.key)
            if done and entry.complete:
                return done  # by another runner, or by us just before we were killed
            run = done or (self._find(experiment, records.TAG_ENTRY, entry.key) if entry.complete else "")
        if not run:
            run = self._create(experiment, entry)
        self._batches(run, entry, place / ARTIFACTS)
        if any((place / ARTIFACTS).iterdir()):
            self.client.log_artifacts(run, str(place / ARTIFACTS))
        if entry.status != "RUNNING":
            self.client.set_terminated(run, entry.status)
        if entry.complete:
            self.client.set_tag(run, records.TAG_COMPLETE, entry.complete)
        return run

    def _experiment(self, grid: str) -> str:
        if grid not in self._experiments:
            self._experiments[grid] = ensure_experiment(self.client, self.folder, grid)
        return self._experiments[grid]

    def _find(self, experiment: str, tag: str, value: str) -> str:
        found = self.client.search_runs([experiment], f"tags.{tag} = '{value}'", max_results=1)
        return str(found[0].info.run_id) if found else ""

    def _create(self, experiment: str, entry: Entry) -> str:
        tags = dict(entry.tags) | {records.TAG_ENTRY: entry.key}
        if entry.parent:
            self._ids.setdefault(entry.parent, self._find(experiment, records.TAG_ENTRY, entry.parent))
            if self._ids[entry.parent]:
                tags["mlflow.parentRunId"] = self._ids[entry.parent]
            else:
                del self._ids[entry.parent]
        made = self.client.create_run(experiment, start_time=entry.started, run_name=entry.name, tags=tags)
        return str(made.info.run_id)

    def _batches(self, run: str, entry: Entry, artifacts: Path) -> None:
        from mlflow.entities import Metric, Param

        rows = [(name, value, entry.step) for name, value in entry.metrics.items()]
        for name, prefix in records.CURVE_PREFIXES.items():
            rows += curve(artifacts / name, prefix)
        metrics = [Metric(name, v, entry.measured, step) for name, v, step in rows if math.isfinite(v)]
        params = [Param(name, value) for name, value in entry.params.items()]
        for part in _cut(params, BATCH // 10):
            self.client.log_batch(run, params=part)
        for part in _cut(metrics, BATCH):
            self.client.log_batch(run, metrics=part)


def _cut(rows: list[Any], size: int) -> list[list[Any]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def curve(path: Path, prefix: str) -> list[tuple[str, float, int]]:
    """The columns of a table by step as (name, value, step); nothing where there is no such file or no step."""
    if not path.is_file():
        return []
    import pandas as pd

    table = pd.read_parquet(path)
    if "step" not in table.columns:  # an arm of no steps has an empty table
        return []
    numbers = table.select_dtypes("number").drop(columns="step").astype(float)
    columns = {f"{prefix}{name}": numbers[name].to_numpy() for name in numbers.columns}
    steps = table["step"].to_numpy()
    return [(name, float(v), int(s)) for name, values in columns.items() for v, s in zip(values, steps, strict=True)]
