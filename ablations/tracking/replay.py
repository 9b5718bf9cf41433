"""Write the outbox's entries to the tracking store: each run exactly once, regardless of retries and concurrent processes."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ablations.tracking import curves, records
from ablations.tracking.connection import WAIT, answering, describe_error, ensure_experiment, open_client, trouble
from ablations.tracking.curves import Point
from ablations.tracking.outbox import ARTIFACTS, Entry, Outbox
from ablations.tracking.run_files import cached, locate, repository
from ablations.tracking.runs_folder import RunsFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient

FEW, MANY = 100, 800
"""Params (or tags) and metrics in one batch; MLflow's limits are 100, 100 and together 1,000."""
PAUSE = 30.0
"""Seconds without a retry after the store did not answer, so that an unavailable store costs little time."""


@dataclass
class Replay:
    """Writes the entries in one runs folder's outbox to the store; they stay there while the store does not answer."""

    folder: RunsFolder
    """The runs folder."""
    why: list[str] = field(default_factory=list)
    """Why entries still wait, from the last attempt."""
    _written: dict[str, Any] = field(default_factory=dict)
    """Key -> the run to which this object wrote the entry."""
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
        """Return the id of the run to which this object wrote an entry; empty if it wrote none."""
        return str(self._written[key].info.run_id) if key in self._written else ""

    def artifacts(self, entry: Entry) -> Path:
        """Return the current folder of an entry's artifacts: in the outbox, or in the store once the entry is written."""
        if folder := self.outbox.place(entry.key):
            return folder / ARTIFACTS
        if entry.key not in self._written:  # another process wrote it
            with answering(self.folder):
                self._written[entry.key] = self._runs(entry)[0]
        return locate(self.folder, self._written[entry.key])

    def flush(self, *, force: bool = False, wait: float = WAIT) -> None:
        """Write every waiting entry, oldest first. Errors of the store are not raised: entries that cannot be written wait.

        Args:
            force: Whether to try even within `PAUSE` seconds of a failure.
            wait: Maximum seconds to wait while another process writes entries.
        """
        if not self.folder.outbox.is_dir() or (time.monotonic() < self._retry_at and not force):
            return
        # A process that holds the lock for longer writes our entries too.
        with contextlib.suppress(Timeout), FileLock(self.outbox.root / ".lock", timeout=wait):
            self.outbox.sweep()
            self.why, self._retry_at = [], 0.0
            for folder, entry in self.outbox.pending().items():
                if not self._answers():
                    break
                try:
                    run = self._write(entry, curves.stored(folder / ARTIFACTS), folder / ARTIFACTS)
                    whole = entry.complete and records.roles(run.data.tags) == records.roles(entry.tags)
                    keep = cached(self.folder, run) if self.folder.server and whole else None
                    self.outbox.remove(folder, keep)
                except Exception as error:  # tracking must never make a cell fail, whatever the store raises
                    self.why.append(describe_error(self.folder, error))

    def waiting(self) -> str:
        """Return a sentence on how many records wait and why; empty if none do."""
        count = len(self.outbox.pending())
        if not count:
            return ""
        why = "; ".join(dict.fromkeys(self.why)) or "not tried yet"
        subject = "record waits" if count == 1 else "records wait"
        return (
            f"{count} {subject} in {self.outbox.root} for the tracking store ({why}). Nothing is lost: the next command on this "
            "runs folder tries again."
        )

    def show(self, entry: Entry, points: Iterable[Point]) -> None:
        """Log new points of a running cell. The entry of its record completes the same run.

        Points that the store does not accept now are written with the record.
        """
        if self._answers():
            with contextlib.suppress(Exception):  # tracking must never make a cell fail, whatever the store raises
                self._write(entry, points)

    def _answers(self) -> bool:
        """Return whether the store can be written. If not, it is not asked again for `PAUSE` seconds."""
        if time.monotonic() < self._retry_at:
            return False
        if reason := trouble(self.folder):
            self.why, self._retry_at = [*self.why, reason], time.monotonic() + PAUSE
        return not reason

    def _write(self, entry: Entry, points: Iterable[Point], artifacts: Path | None = None) -> Any:
        """Write an entry, with points of its curves, and return its run. Repeating this has no further effect.

        The run may exist already: as a running cell that was shown, or partially from an interrupted attempt. A failed or killed
        attempt at the cell is replaced. The run of a complete cell is not changed, unless the entry adds to it.
        """
        self.folder.relocate()
        runs = self._runs(entry)
        if complete := _complete(runs, entry):
            self._written[entry.key] = run = complete[0]
            if entry.adds:
                self._add(run, entry, artifacts)
            return run
        if entry.adds:
            raise LookupError(f"{entry.name}: the cell that this adds to is not recorded; run the grid again")
        for run in [run for run in runs if entry.cell and run.info.status in ("FAILED", "KILLED")]:
            self.client.delete_run(run.info.run_id)
            runs.remove(run)
        self._written[entry.key] = run = runs[0] if runs else self._create(entry)
        tags = {name: value for name, value in entry.tags.items() if run.data.tags.get(name) != value}
        # MLflow params are immutable, so only those are logged that an interrupted attempt did not log.
        params = {name: value for name, value in entry.params.items() if name not in run.data.params}
        measured = [(name, value, entry.step) for name, value in entry.metrics.items()]
        self._log(run, tags, params, [*measured, *points])
        self._log_datasets(run, entry.datasets)
        self._copy(run, artifacts)
        if entry.status != "RUNNING":
            self.client.set_terminated(run.info.run_id, entry.status, entry.ended)
        if entry.complete:
            self.client.set_tag(run.info.run_id, records.TAG_COMPLETE, entry.cell)
        if entry.complete and self.folder.server:  # another runs folder may have completed the cell at the same time
            self._written[entry.key], *duplicates = _complete(self._runs(entry), entry)
            for duplicate in duplicates:
                self.client.delete_run(duplicate.info.run_id)
        return self._written[entry.key]

    def _add(self, run: Any, entry: Entry, artifacts: Path | None) -> None:
        """Add artifacts and roles (`records.TAG_OPTIONAL`) to the complete run of a cell."""
        self._copy(run, artifacts)
        roles = records.roles(run.data.tags) | records.roles(entry.tags)
        self.client.set_tag(run.info.run_id, records.TAG_OPTIONAL, ",".join(sorted(roles)))
        shutil.rmtree(cached(self.folder, run), ignore_errors=True)  # it lacks the new artifacts

    def _copy(self, run: Any, artifacts: Path | None) -> None:
        if artifacts:
            repository(self.folder, run).log_artifacts(str(artifacts))

    def _runs(self, entry: Entry) -> list[Any]:
        """Return all runs of the entry's cell or, if it has no cell, of its key."""
        tag, value = (records.TAG_CELL_HASH, entry.cell) if entry.cell else (records.TAG_ENTRY, entry.key)
        experiment = ensure_experiment(self.client, self.folder, entry.experiment)
        return list(self.client.search_runs([experiment], f"tags.{tag} = '{value}'"))

    def _create(self, entry: Entry) -> Any:
        experiment = ensure_experiment(self.client, self.folder, entry.experiment)
        tags = {**entry.tags, records.TAG_ENTRY: entry.key}
        return self.client.create_run(experiment, start_time=entry.started, run_name=entry.name, tags=tags)

    def _log(self, run: Any, tags: Mapping[str, str], params: Mapping[str, str], points: Sequence[Point]) -> None:
        """Log in as few batches as MLflow's limits allow, because each batch is a transaction.

        All metrics have the run's start as their time, so that a point logged twice is stored once.
        """
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.utils import chunk_list

        batches = zip_longest(
            chunk_list([RunTag(*tag) for tag in tags.items()], FEW),
            chunk_list([Param(*param) for param in params.items()], FEW),
            chunk_list([Metric(name, value, run.info.start_time, step) for name, value, step in points], MANY),
            fillvalue=(),
        )
        for few_tags, few_params, metrics in batches:
            self.client.log_batch(run.info.run_id, tags=few_tags, params=few_params, metrics=metrics)

    def _log_datasets(self, run: Any, datasets: Mapping[str, str]) -> None:
        from mlflow.entities import Dataset, DatasetInput

        inputs = [DatasetInput(Dataset(name, digest, "code", "{}"), []) for name, digest in datasets.items()]
        if inputs:
            self.client.log_inputs(run.info.run_id, inputs)


def _complete(runs: Iterable[Any], entry: Entry) -> list[Any]:
    """Return the runs that are complete records of the entry's cell, oldest first."""
    complete = [run for run in runs if entry.cell and run.data.tags.get(records.TAG_COMPLETE) == entry.cell]
    return sorted(complete, key=lambda run: (run.info.start_time, run.info.run_id))
