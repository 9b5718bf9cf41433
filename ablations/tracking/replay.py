"""Write the outbox's entries to the tracking store: each run exactly once, regardless of retries and concurrent processes."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from ablations.execution.runs_folder import RunsFolder
from ablations.tracking import curves, records
from ablations.tracking.connection import WAIT, answering, describe_error, ensure_experiment, open_client, trouble
from ablations.tracking.curves import Point
from ablations.tracking.outbox import ARTIFACTS, Entry, Outbox
from ablations.tracking.run_files import locate

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 1000
"""MLflow's limit on metrics, params and tags together in one batch."""
FEW = 100
"""MLflow's limit on params, and on tags, in one batch."""
PAUSE = 30.0
"""Seconds without a retry after the store did not answer, so that an unavailable store costs little time."""


@dataclass
class Replay:
    """Writes the entries in one runs folder's outbox to the store; they stay there while the store does not answer."""

    folder: RunsFolder
    """The runs folder."""
    why: dict[str, str] = field(default_factory=dict)
    """Key -> why the entry still waits, from the last attempt."""
    _ids: dict[str, str] = field(default_factory=dict)
    """Key -> id of the run that this object wrote for the entry; empty if another process shows that cell as running."""
    _folders: dict[str, Path] = field(default_factory=dict)
    _experiments: dict[str, str] = field(default_factory=dict)
    _retry_at: float = 0.0

    @property
    def outbox(self) -> Outbox:
        """The outbox of the runs folder."""
        return Outbox(self.folder.outbox)

    @cached_property
    def client(self) -> MlflowClient:
        """The MLflow client. Access it only after `trouble` has found the store available."""
        return open_client(self.folder)

    def run_id(self, key: str) -> str:
        """Return the id of the run that this object wrote for an entry; empty if it wrote none."""
        return self._ids.get(key, "")

    def artifacts(self, entry: Entry) -> Path:
        """Return the current folder of an entry's artifacts: in the outbox, or in the store once the entry is written."""
        if folder := self.outbox.place(entry.key):
            return folder / ARTIFACTS
        if entry.key not in self._folders:
            with answering(self.folder):
                run = self.run_id(entry.key) or self._runs(entry)[0].info.run_id
                self._folders[entry.key] = locate(self.folder, run, self._artifact_uri(run))
        return self._folders[entry.key]

    def flush(self, *, force: bool = False, wait: float = WAIT) -> None:
        """Write every waiting entry, oldest first. Errors of the store are not raised: entries that cannot be written wait.

        Args:
            force: Whether to try even within `PAUSE` seconds of a failure.
            wait: Maximum seconds to wait while another process writes entries.
        """
        if not self.folder.outbox.is_dir() or (time.monotonic() < self._retry_at and not force):
            return
        try:
            with self.outbox.lock(wait):
                self.outbox.sweep()
                self._carry()
        except Timeout:
            return  # the process that holds the lock writes our entries too

    def waiting(self) -> str:
        """Return a sentence on how many records wait and why; empty if none do."""
        count = len(self.outbox.pending())
        if not count:
            return ""
        why = "; ".join(dict.fromkeys(self.why.values())) or "not tried yet"
        subject = "record waits" if count == 1 else "records wait"
        return (
            f"{count} {subject} in {self.outbox.root} for the tracking store ({why}). Nothing is lost: the next command on this "
            "runs folder tries again."
        )

    def show(self, entry: Entry, points: Sequence[Point]) -> None:
        """Show a running cell: create its run if necessary and log new points. The entry of its record completes the same run.

        Points that the store does not accept now are written with the record.
        """
        if time.monotonic() < self._retry_at or self._ids.get(entry.key) == "":
            return
        if trouble(self.folder):
            self._retry_at = time.monotonic() + PAUSE
            return
        try:
            if entry.key not in self._ids:
                self._ids[entry.key] = self._begin(entry)
            if run := self._ids[entry.key]:
                self._log(run, metrics=_metrics(points, self.client.get_run(run).info.start_time))
        except Exception:  # tracking must never make a cell fail, whatever the store raises
            self._retry_at = time.monotonic() + PAUSE

    def _begin(self, entry: Entry) -> str:
        """Create a cell's run, replacing those of earlier attempts, and return its id.

        Return an empty id if another process shows the cell as running, or if the cell is complete.
        """
        earlier = [run for run in self._runs(entry) if run.data.tags.get(records.TAG_ENTRY) == entry.key]
        if any(run.info.status in ("RUNNING", "FINISHED") for run in earlier):
            return ""
        for run in earlier:
            self.client.delete_run(run.info.run_id)
        run = self._create(entry)
        self._log(run.info.run_id, params=entry.params)
        return str(run.info.run_id)

    def _carry(self) -> None:
        self.why = {}
        waiting = self.outbox.pending()
        problem = trouble(self.folder) if waiting else ""
        for folder, entry in waiting.items():
            if not problem:
                try:
                    self.folder.relocate()
                    self._ids[entry.key] = run = self._write(entry, folder / ARTIFACTS)
                    self.outbox.remove(
                        folder, self.folder.cache / run if self.folder.server and entry.complete else None
                    )
                    continue
                except Exception as error:  # tracking must never make a cell fail, whatever the store raises
                    self.why[entry.key] = describe_error(self.folder, error)
                    problem = trouble(self.folder)
            if problem:
                self._retry_at = time.monotonic() + PAUSE
                self.why[entry.key] = problem

    def _write(self, entry: Entry, artifacts: Path) -> str:
        """Write an entry to its run, which may exist partially from an interrupted attempt, and return the run's id."""
        runs = self._runs(entry)
        complete = [run for run in runs if entry.cell and run.data.tags.get(records.TAG_COMPLETE) == entry.cell]
        own_runs = [run for run in runs if run.data.tags.get(records.TAG_ENTRY) == entry.key]
        if entry.adds:
            return self._add(complete, entry, artifacts)
        if complete:
            return str(complete[0].info.run_id)  # written by another runner, or by this one just before it was killed
        if (
            own_runs and entry.complete and own_runs[0].info.status == "FAILED"
        ):  # an earlier attempt, which the record replaces
            self.client.delete_run(own_runs.pop(0).info.run_id)
        run = own_runs[0] if own_runs else self._create(entry)
        run_id, start = str(run.info.run_id), run.info.start_time
        points = [(name, value, entry.step) for name, value in entry.metrics.items()] + curves.stored(artifacts)
        # MLflow params are immutable, so only those are logged that an interrupted attempt did not log.
        params = {name: value for name, value in entry.params.items() if name not in run.data.params}
        self._log(run_id, entry.tags if own_runs else {}, params, _metrics(points, start))
        self._log_datasets(run_id, entry.datasets)
        self._copy(run_id, artifacts)
        if entry.status != "RUNNING":
            self.client.set_terminated(run_id, entry.status)
        if entry.complete:
            self.client.set_tag(run_id, records.TAG_COMPLETE, entry.cell)
            if self.folder.server:
                return self._keep_oldest(entry)
        return run_id

    def _add(self, complete: Sequence[Any], entry: Entry, artifacts: Path) -> str:
        """Add tags and artifacts to the complete run of a cell and return its id. Raise LookupError if there is no such run."""
        if not complete:
            raise LookupError(f"{entry.name}: the cell that this adds to is not recorded; run the grid again")
        run = str(complete[0].info.run_id)
        self._copy(run, artifacts)
        roles = {
            *complete[0].data.tags.get(records.TAG_OPTIONAL, "").split(","),
            *entry.tags[records.TAG_OPTIONAL].split(","),
        }
        self.client.set_tag(run, records.TAG_OPTIONAL, ",".join(sorted(filter(None, roles))))
        if self.folder.server:  # a cached copy may lack the new artifacts
            shutil.rmtree(self.folder.cache / run, ignore_errors=True)
        return run

    def _artifact_uri(self, run: str) -> str:
        return self.folder.here(self.client.get_run(run).info.artifact_uri)

    def _copy(self, run: str, artifacts: Path) -> None:
        """Add to a run's artifacts. A local store is written through this mount of the folder, not through the stored path."""
        if not any(artifacts.iterdir()):
            return
        home = self._artifact_uri(run)
        if self.folder.server or not Path(home).is_absolute():
            self.client.log_artifacts(run, str(artifacts))
            return
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

        LocalArtifactRepository(home).log_artifacts(str(artifacts))

    def _keep_oldest(self, entry: Entry) -> str:
        """Keep the completion tag only on the oldest run of a cell, and return its id.

        Two runs folders may complete the same cell on one server at the same time.
        """
        from mlflow.exceptions import MlflowException

        runs = [run for run in self._runs(entry) if run.data.tags.get(records.TAG_COMPLETE) == entry.cell]
        first, *duplicates = sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))
        for duplicate in duplicates:
            with contextlib.suppress(MlflowException):  # the other runner may have deleted it already
                self.client.delete_tag(duplicate.info.run_id, records.TAG_COMPLETE)
        return str(first.info.run_id)

    def _runs(self, entry: Entry) -> Sequence[Any]:
        """Return all runs of the entry's cell or, if it has no cell, of its key."""
        tag, value = (records.TAG_CELL_HASH, entry.cell) if entry.cell else (records.TAG_ENTRY, entry.key)
        return list(self.client.search_runs([self._experiment(entry.experiment)], f"tags.{tag} = '{value}'"))

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            self._experiments[name] = ensure_experiment(self.client, self.folder, name)
        return self._experiments[name]

    def _create(self, entry: Entry) -> Any:
        tags = dict(entry.tags) | {records.TAG_ENTRY: entry.key}
        experiment = self._experiment(entry.experiment)
        return self.client.create_run(experiment, start_time=entry.started, run_name=entry.name, tags=tags)

    def _log(
        self,
        run: str,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        metrics: Iterable[Any] = (),
    ) -> None:
        """Log in as few batches as MLflow's limits allow, because each batch is a transaction."""
        from mlflow.entities import Param, RunTag

        remaining = (
            [RunTag(*item) for item in (tags or {}).items()],
            [Param(*item) for item in (params or {}).items()],
            list(metrics),
        )
        while any(remaining):
            batch = remaining[0][:FEW], remaining[1][:FEW]
            metric_count = BATCH - len(batch[0]) - len(batch[1])
            self.client.log_batch(run, tags=batch[0], params=batch[1], metrics=remaining[2][:metric_count])
            remaining = remaining[0][FEW:], remaining[1][FEW:], remaining[2][metric_count:]

    def _log_datasets(self, run: str, datasets: Mapping[str, str]) -> None:
        from mlflow.entities import Dataset, DatasetInput

        inputs = [DatasetInput(Dataset(name, digest, "code", "{}"), []) for name, digest in datasets.items()]
        if inputs:
            self.client.log_inputs(run, inputs)


def _metrics(points: Iterable[Point], time: int) -> list[Any]:
    """Convert points to MLflow metrics. All have the run's start as their time, so that a point logged twice is stored once."""
    from mlflow.entities import Metric

    return [Metric(name, value, time, step) for name, value, step in points]
