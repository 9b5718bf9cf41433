"""Carry the outbox's entries over to the tracking store: each run once, however often it is tried and by whoever."""

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
from ablations.tracking.connection import WAIT, answering, ensure_experiment, open_client, said, trouble
from ablations.tracking.curves import Point
from ablations.tracking.outbox import ARTIFACTS, Entry, Outbox
from ablations.tracking.run_files import locate

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 1000
"""MLflow's limit of metrics, params and tags in one batch."""
FEW = 100
"""Its limit of params, and of tags."""
PAUSE = 30.0
"""Seconds without another try after the store did not answer, so that a dead one costs little."""


@dataclass
class Replay:
    """Writes what waits in one runs folder's outbox; a store that does not answer leaves it waiting."""

    folder: RunsFolder
    """Whose outbox."""
    why: dict[str, str] = field(default_factory=dict)
    """Key -> why the entry still waits, of the last try."""
    _ids: dict[str, str] = field(default_factory=dict)
    """Key -> the run that the entry became by this object's doing; empty: another process shows that cell at work."""
    _places: dict[str, Path] = field(default_factory=dict)
    _experiments: dict[str, str] = field(default_factory=dict)
    _next: float = 0.0

    @property
    def outbox(self) -> Outbox:
        """What waits."""
        return Outbox(self.folder.outbox)

    @cached_property
    def client(self) -> MlflowClient:
        """The MLflow client; asked for only once the store has answered."""
        return open_client(self.folder)

    def run_id(self, key: str) -> str:
        """The run that an entry became by this object's doing, or empty."""
        return self._ids.get(key, "")

    def artifacts(self, entry: Entry) -> Path:
        """Where an entry's artifacts lie now: in the outbox, or where the store keeps the run's."""
        if place := self.outbox.place(entry.key):
            return place / ARTIFACTS
        if entry.key not in self._places:
            with answering(self.folder):
                run = self.run_id(entry.key) or self._runs(entry)[0].info.run_id
                self._places[entry.key] = locate(self.folder, run, self._home(run))
        return self._places[entry.key]

    def carry(self, *, force: bool = False, wait: float = WAIT) -> None:
        """Write every waiting entry, oldest first. Never raises for the store's sake: what cannot be written waits.

        ``force`` tries a store that has just failed; ``wait`` is how long another process may be at it.
        """
        if not self.folder.outbox.is_dir() or (time.monotonic() < self._next and not force):
            return
        try:
            with self.outbox.lock(wait):
                self.outbox.sweep()
                self._carry()
        except Timeout:
            return  # whoever holds it carries ours too

    def waiting(self) -> str:
        """How many records wait and why, as a sentence; empty when none does."""
        count = len(self.outbox.pending())
        if not count:
            return ""
        why = "; ".join(dict.fromkeys(self.why.values())) or "not tried yet"
        words = "record waits" if count == 1 else "records wait"
        return (
            f"{count} {words} in {self.outbox.root} for the tracking store ({why}). Nothing is lost: the next command on this "
            "runs folder carries on."
        )

    def show(self, entry: Entry, points: Sequence[Point]) -> None:
        """Show a cell at work: the run that the entry of its record will complete, with the points so far.

        What the store does not take now comes with the record.
        """
        if time.monotonic() < self._next or self._ids.get(entry.key) == "":
            return
        if trouble(self.folder):
            self._next = time.monotonic() + PAUSE
            return
        try:
            if entry.key not in self._ids:
                self._ids[entry.key] = self._begin(entry)
            if run := self._ids[entry.key]:
                self._log(run, metrics=_metrics(points, self.client.get_run(run).info.start_time))
        except Exception:  # a cell never dies of tracking, whatever the store does
            self._next = time.monotonic() + PAUSE

    def _begin(self, entry: Entry) -> str:
        """A new run of a cell, in place of what earlier tries left; empty where another process shows it, or it is done."""
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
        down = trouble(self.folder) if waiting else ""
        for place, entry in waiting.items():
            if not down:
                try:
                    self.folder.relocate()
                    self._ids[entry.key] = run = self._write(entry, place / ARTIFACTS)
                    self.outbox.remove(
                        place, self.folder.cache / run if self.folder.server and entry.complete else None
                    )
                    continue
                except Exception as error:  # a cell never dies of tracking, whatever the store does
                    self.why[entry.key] = said(self.folder, error)
                    down = trouble(self.folder)
            if down:
                self._next = time.monotonic() + PAUSE
                self.why[entry.key] = down

    def _write(self, entry: Entry, artifacts: Path) -> str:
        """Make the run what the entry says, going on with one that was cut off; its id."""
        runs = self._runs(entry)
        done = [run for run in runs if entry.cell and run.data.tags.get(records.TAG_COMPLETE) == entry.cell]
        own = [run for run in runs if run.data.tags.get(records.TAG_ENTRY) == entry.key]
        if entry.adds:
            return self._add(done, entry, artifacts)
        if done:
            return str(done[0].info.run_id)  # by another runner, or by us just before we were killed
        if own and entry.complete and own[0].info.status == "FAILED":  # an earlier try, which the record replaces
            self.client.delete_run(own.pop(0).info.run_id)
        run = own[0] if own else self._create(entry)
        number, start = str(run.info.run_id), run.info.start_time
        points = [(name, value, entry.step) for name, value in entry.metrics.items()] + curves.stored(artifacts)
        params = {
            name: value for name, value in entry.params.items() if name not in run.data.params
        }  # they cannot be changed
        self._log(number, entry.tags if own else {}, params, _metrics(points, start))
        self._log_datasets(number, entry.datasets)
        self._copy(number, artifacts)
        if entry.status != "RUNNING":
            self.client.set_terminated(number, entry.status)
        if entry.complete:
            self.client.set_tag(number, records.TAG_COMPLETE, entry.cell)
            if self.folder.server:
                return self._single(entry)
        return number

    def _add(self, done: Sequence[Any], entry: Entry, artifacts: Path) -> str:
        """Add to the complete run of a cell; its id. Raises LookupError where there is none."""
        if not done:
            raise LookupError(f"{entry.name}: the cell that this adds to is not recorded; run the grid again")
        run = str(done[0].info.run_id)
        self._copy(run, artifacts)
        roles = {
            *done[0].data.tags.get(records.TAG_OPTIONAL, "").split(","),
            *entry.tags[records.TAG_OPTIONAL].split(","),
        }
        self.client.set_tag(run, records.TAG_OPTIONAL, ",".join(sorted(filter(None, roles))))
        if self.folder.server:  # fetched before it was added to
            shutil.rmtree(self.folder.cache / run, ignore_errors=True)
        return run

    def _home(self, run: str) -> str:
        return self.folder.here(self.client.get_run(run).info.artifact_uri)

    def _copy(self, run: str, artifacts: Path) -> None:
        """Add to a run's artifacts: in this mount of the folder, wherever the last one to open it has pointed the store."""
        if not any(artifacts.iterdir()):
            return
        home = self._home(run)
        if self.folder.server or not Path(home).is_absolute():
            self.client.log_artifacts(run, str(artifacts))
            return
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

        LocalArtifactRepository(home).log_artifacts(str(artifacts))

    def _single(self, entry: Entry) -> str:
        """Where two runs folders completed one cell on one server at the same time, only the first run keeps the tag."""
        from mlflow.exceptions import MlflowException

        runs = [run for run in self._runs(entry) if run.data.tags.get(records.TAG_COMPLETE) == entry.cell]
        first, *others = sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))
        for other in others:
            with contextlib.suppress(MlflowException):  # the other runner may have done so
                self.client.delete_tag(other.info.run_id, records.TAG_COMPLETE)
        return str(first.info.run_id)

    def _runs(self, entry: Entry) -> Sequence[Any]:
        """All runs of the entry's cell, or the one of its key."""
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
        """Log in batches, each a transaction: few, full ones."""
        from mlflow.entities import Param, RunTag

        left = (
            [RunTag(*item) for item in (tags or {}).items()],
            [Param(*item) for item in (params or {}).items()],
            list(metrics),
        )
        while any(left):
            first = left[0][:FEW], left[1][:FEW]
            room = BATCH - len(first[0]) - len(first[1])
            self.client.log_batch(run, tags=first[0], params=first[1], metrics=left[2][:room])
            left = left[0][FEW:], left[1][FEW:], left[2][room:]

    def _log_datasets(self, run: str, datasets: Mapping[str, str]) -> None:
        from mlflow.entities import Dataset, DatasetInput

        found = [DatasetInput(Dataset(name, digest, "code", "{}"), []) for name, digest in datasets.items()]
        if found:
            self.client.log_inputs(run, found)


def _metrics(points: Iterable[Point], time: int) -> list[Any]:
    """As MLflow's entities, all at the run's start: the same point twice is then one."""
    from mlflow.entities import Metric

    return [Metric(name, value, time, step) for name, value, step in points]
