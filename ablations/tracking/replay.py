"""Carry the spool's entries over to the tracking store: each run once, however often it is tried and by whoever."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import Timeout

from ablations.execution.runs_folder import RunsFolder
from ablations.tracking import records
from ablations.tracking.connection import WAIT, answering, ensure_experiment, open_client, said, trouble
from ablations.tracking.outbox import ARTIFACTS, Entry, Spool
from ablations.tracking.run_files import locate

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 1000
"""MLflow's limit of metrics and params in one batch."""
PARAMS = 100
"""Its limit of params alone."""
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
    _places: dict[str, Path] = field(default_factory=dict)
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
        if entry.key not in self._places:
            with answering(self.folder):
                run = self.run_id(entry.key) or self._find(self._experiment(entry.grid), records.TAG_ENTRY, entry.key)
                self._places[entry.key] = locate(self.folder, run, self._home(run))
        return self._places[entry.key]

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

    def waiting(self) -> str:
        """How many records wait and why, as a sentence; empty when none does."""
        count = len(self.spool.pending())
        if not count:
            return ""
        why = "; ".join(dict.fromkeys(self.why.values())) or "not tried yet"
        words = "record waits" if count == 1 else "records wait"
        return (
            f"{count} {words} in {self.spool.root} for the tracking store ({why}). Nothing is lost: the next command on this "
            "runs folder carries on."
        )

    def _carry(self) -> None:
        self.why = {}
        waiting = self.spool.pending()
        down = trouble(self.folder) if waiting else ""
        for place, entry in waiting.items():
            if not down:
                try:
                    self.folder.relocate()
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
        if entry.amends:
            return self._amend(experiment, entry, place / ARTIFACTS)
        run = self._ids.get(entry.key, "")
        if not run:
            done, run = self._earlier(experiment, entry)
            if done:
                return done  # by another runner, or by us just before we were killed
        if not run:
            run = self._create(experiment, entry)
        for name, text in entry.texts.items():
            path = place / ARTIFACTS / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        self._fill(run, entry, place / ARTIFACTS)
        if entry.status != "RUNNING":
            self.client.set_terminated(run, entry.status)
        if entry.complete:
            self.client.set_tag(run, records.TAG_COMPLETE, entry.complete)
            if self.folder.server:
                return self._single(experiment, entry.complete)
        return run

    def _amend(self, experiment: str, entry: Entry, artifacts: Path) -> str:
        """Add to the run that completes the cell ``entry.amends``; its id. Raises LookupError where there is none."""
        found = self.client.search_runs([experiment], f"tags.{records.TAG_COMPLETE} = '{entry.amends}'")
        if not found:
            raise LookupError(f"{entry.name}: the cell that this adds to is not recorded; run the grid again")
        run = found[0]
        self._fill(run.info.run_id, entry, artifacts)
        added = {*run.data.tags.get(records.TAG_OPTIONAL, "").split(","), *entry.tags[records.TAG_OPTIONAL].split(",")}
        self.client.set_tag(run.info.run_id, records.TAG_OPTIONAL, ",".join(sorted(filter(None, added))))
        if self.folder.server:  # fetched before it was added to
            shutil.rmtree(self.folder.cache / run.info.run_id, ignore_errors=True)
        return str(run.info.run_id)

    def _fill(self, run: str, entry: Entry, artifacts: Path) -> None:
        """An entry's params, metrics and artifacts."""
        self._batches(run, entry, artifacts)
        if any(artifacts.iterdir()):
            self._copy(run, artifacts)

    def _home(self, run: str) -> str:
        return self.folder.here(self.client.get_run(run).info.artifact_uri)

    def _copy(self, run: str, artifacts: Path) -> None:
        """Add to a run's artifacts: in this mount of the folder, wherever the last one to open it has pointed the store."""
        home = self._home(run)
        if self.folder.server or not Path(home).is_absolute():
            self.client.log_artifacts(run, str(artifacts))
            return
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

        LocalArtifactRepository(home).log_artifacts(str(artifacts))

    def _single(self, experiment: str, cell_hash: str) -> str:
        """Where two runs folders completed one cell on one server at the same time, only the first run keeps the tag."""
        from mlflow.exceptions import MlflowException

        runs = self.client.search_runs([experiment], f"tags.{records.TAG_COMPLETE} = '{cell_hash}'")
        first, *others = sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))
        for other in others:
            with contextlib.suppress(MlflowException):  # the other runner may have done so
                self.client.delete_tag(other.info.run_id, records.TAG_COMPLETE)
        return str(first.info.run_id)

    def _earlier(self, experiment: str, entry: Entry) -> tuple[str, str]:
        """A run that completes the entry's cell already, and one of the entry's own that was cut off; empty for none."""
        tag, value = (records.TAG_CELL_HASH, entry.complete) if entry.complete else (records.TAG_ENTRY, entry.key)
        runs = self.client.search_runs([experiment], f"tags.{tag} = '{value}'")
        done = [run for run in runs if entry.complete and run.data.tags.get(records.TAG_COMPLETE) == entry.complete]
        own = [run for run in runs if run.data.tags.get(records.TAG_ENTRY) == entry.key]
        return done[0].info.run_id if done else "", own[0].info.run_id if own else ""

    def _experiment(self, grid: str) -> str:
        if grid not in self._experiments:
            self._experiments[grid] = ensure_experiment(self.client, self.folder, grid)
        return self._experiments[grid]

    def _find(self, experiment: str, tag: str, value: str) -> str:
        found = self.client.search_runs([experiment], f"tags.{tag} = '{value}'", max_results=1)
        return str(found[0].info.run_id) if found else ""

    def _create(self, experiment: str, entry: Entry) -> str:
        tags = dict(entry.tags) | {records.TAG_ENTRY: entry.key}
        if entry.parent and (parent := self._parent(experiment, entry.parent)):
            tags["mlflow.parentRunId"] = parent
        made = self.client.create_run(experiment, start_time=entry.started, run_name=entry.name, tags=tags)
        return str(made.info.run_id)

    def _parent(self, experiment: str, key: str) -> str:
        if key not in self._ids and (found := self._find(experiment, records.TAG_ENTRY, key)):
            self._ids[key] = found
        return self._ids.get(key, "")

    def _batches(self, run: str, entry: Entry, artifacts: Path) -> None:
        from mlflow.entities import Metric, Param

        rows = [(name, value, entry.step) for name, value in entry.metrics.items()]
        added = {f"{name}_{records.POINTS_FILE}": f"checkpoint_{name}/" for name in records.added(artifacts)}
        for name, prefix in (records.CURVE_PREFIXES | added).items():
            rows += curve(artifacts / name, prefix)
        metrics = [Metric(name, v, entry.measured, step) for name, v, step in rows if math.isfinite(v)]
        params = [Param(name, value) for name, value in entry.params.items()]
        while params or metrics:  # each batch is a transaction: few, full ones
            now, params = params[:PARAMS], params[PARAMS:]
            room = BATCH - len(now)
            self.client.log_batch(run, params=now, metrics=metrics[:room])
            metrics = metrics[room:]


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
