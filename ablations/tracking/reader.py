"""Read cells from MLflow: complete cells as records, the source of tables and figures, and failed cells with their reasons."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from ablations.failures import Lost
from ablations.tracking import local_runs, records
from ablations.tracking.connection import UnavailableError, answering, ensure_experiment, open_client, trouble
from ablations.tracking.invocations import Attempt, Invocation, invocation
from ablations.tracking.outbox import Entry
from ablations.tracking.reconcile import reconcile
from ablations.tracking.records import Record
from ablations.tracking.replay import Replay
from ablations.tracking.run_files import locate
from ablations.tracking.runs_folder import RunsFolder
from rrpo.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient


PATIENCE = 20.0
"""Maximum seconds that a reader waits for a locked store."""
MOST = 50_000
"""Maximum number of runs that MLflow returns from one search; a grid has fewer."""
OLDEST_FIRST = ["attributes.start_time ASC"]
R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Store:
    """Reads one runs folder, which must exist.

    The first access applies pending updates: it rewrites the artifact paths of a moved folder, writes entries that wait in the
    outbox, and marks runs of dead processes as killed. All methods raise UnavailableError if the store does not answer.
    """

    folder: RunsFolder
    """The runs folder."""

    @cached_property
    def replay(self) -> Replay:
        """Writes the outbox to the store."""
        return Replay(self.folder)

    @cached_property
    def client(self) -> MlflowClient:
        """The MLflow client. The first access applies pending updates."""
        self._require_answer()
        with answering(self.folder):
            client = open_client(self.folder)
            self.replay.flush(wait=0)
            reconcile(client)
        return client

    def _open(self) -> None:
        """Apply pending updates to a local store. Import MLflow only if there are any, because its import dominates the time."""
        self._require_answer()
        if self.replay.outbox.pending() or local_runs.any_running(self.folder.database):
            _ = self.client

    def _require_answer(self) -> None:
        if reason := trouble(self.folder, PATIENCE):
            raise UnavailableError(self.folder, reason)
        self.folder.relocate()

    def grids(self) -> list[str]:
        """Return the names of all grids that have an experiment."""
        if self.folder.server:
            with answering(self.folder):
                names = [experiment.name for experiment in self.client.search_experiments()]
        else:
            self._open()
            names = local_runs.experiments(self.folder.database)
        prefixes = (records.EXPERIMENT_STUDY, records.EXPERIMENT_ABOUT)
        return sorted(
            name
            for name in names
            if name not in ("Default", records.EXPERIMENT_WORLD) and not name.startswith(prefixes)
        )

    def states(self, grid: str) -> tuple[dict[str, Record], dict[str, Lost]]:
        """Return the records of a grid's complete cells, and why other cells failed, both by cell hash."""
        complete, attempts = self.cells(grid)
        return complete, {attempt.cell_hash: attempt.lost for attempt in attempts if attempt.lost is not None}

    def cells(self, grid: str) -> tuple[dict[str, Record], list[Attempt]]:
        """Return the records of a grid's complete cells by hash, and the attempts at cells without a complete run.

        Both are ordered oldest first. A cell recorded twice is represented by its newest run. Entries in the outbox count.
        """
        runs = self.runs(grid, "cell")
        by_hash = {run.data.tags[records.TAG_CELL_HASH]: self._record(run, Record) for run in runs if _complete(run)}
        for entry in self.replay.outbox.pending().values():
            if entry.experiment == grid and entry.complete:
                by_hash.setdefault(entry.cell, waiting_record(entry, self.replay))
        others = [run for run in runs if run.data.tags[records.TAG_CELL_HASH] not in by_hash]
        return by_hash, [self._record(run, Attempt) for run in others]

    def records(self, grid: str) -> list[Record]:
        """Return the complete cells of a grid, one record per cell hash."""
        return list(self.states(grid)[0].values())

    def elsewhere(self, grid: str, hashes: Container[str]) -> dict[str, Record]:
        """Return cell hash -> its record by another grid, for those of ``hashes`` that have one with artifacts.

        Of several, the one with the most optional results is chosen, an original rather than a copy, and the newest.
        """
        others = [record for name in self.grids() if name != grid for record in self.records(name)]
        found = [record for record in others if record.cell_hash in hashes and _intact(record)]
        found.sort(key=lambda each: (len(each.optional), records.TAG_COPIED not in each.tags, each.recorded))
        return {record.cell_hash: record for record in found}

    def plans(self, grid: str) -> list[Invocation]:
        """Return the invocations of a grid, oldest first."""
        return [invocation(run) for run in self.runs(grid, "parent")]

    def experiment_id(self, grid: str) -> str:
        """Return the MLflow id of the grid's experiment; empty if there is none."""
        if not self.folder.server:
            self._open()
            return local_runs.experiment_id(self.folder.database, grid)
        with answering(self.folder):
            experiment = self.client.get_experiment_by_name(grid)
        return str(experiment.experiment_id) if experiment else ""

    def about_experiment(self, grid: str) -> str:
        """Return the id of the experiment for a grid's runs other than cells; create it if it is missing."""
        with answering(self.folder):
            return ensure_experiment(self.client, self.folder, f"{records.EXPERIMENT_ABOUT}{grid}")

    def artifacts_of(self, run: Any) -> Path:
        """Return the folder of a run's artifacts."""
        return locate(self.folder, run)

    def record(self, run_id: str) -> Record:
        """Return the cell recorded by a run. Raise InputError if the run does not exist or is not a cell's."""
        from mlflow.exceptions import MlflowException

        try:
            with answering(self.folder):
                run = self.client.get_run(run_id)
        except MlflowException:
            fix = "copy a run id from the MLflow UI or from report.html"
            raise InputError("there is no run with that id", got=run_id, fix=fix) from None
        if run.data.tags.get(records.TAG_KIND) != "cell":
            raise InputError("the run is not a cell's", got=run_id, fix="give the id of a run named arm/seed")
        return self._record(run, Record)

    def runs(self, grid: str, kind: str) -> list[Any]:
        """Return all runs of a kind (`records.TAG_KIND`) of a grid, oldest first."""
        names = [grid, f"{records.EXPERIMENT_ABOUT}{grid}"]
        if not self.folder.server:
            self._open()
            return local_runs.read(self.folder.database, names, kind)
        exp_ids = [exp_id for exp_id in map(self.experiment_id, names) if exp_id]
        query = f"tags.{records.TAG_KIND} = '{kind}'"
        with answering(self.folder):
            runs = self.client.search_runs(exp_ids, query, max_results=MOST, order_by=OLDEST_FIRST) if exp_ids else []
        return list(runs)

    def _record(self, run: Any, kind: type[R]) -> R:
        return _record(run, partial(self.artifacts_of, run), kind)


def waiting_record(entry: Entry, replay: Replay) -> Record:
    """Return a cell's record from its entry in the outbox, even if the entry has been written to the store since."""
    info = SimpleNamespace(run_id=replay.run_id(entry.key), start_time=entry.started)
    return _record(SimpleNamespace(info=info, data=entry), partial(replay.artifacts, entry), Record)


def _record(run: Any, find: Callable[[], Path], kind: type[R]) -> R:
    tags, run_id = run.data.tags, run.info.run_id
    name = f"{tags[records.TAG_ARM]}/{tags[records.TAG_SEED]}, run {run_id or 'not in MLflow yet'}"
    folder = partial(require_artifacts, find, name)
    return kind(
        label=tags[records.TAG_ARM],
        seed=int(tags[records.TAG_SEED]),
        cell_hash=tags[records.TAG_CELL_HASH],
        arm_hash=tags[records.TAG_ARM_HASH],
        world_hash=tags[records.TAG_WORLD_HASH],
        profile=tags[records.TAG_PROFILE],
        params=dict(run.data.params),
        run_id=run_id,
        recorded=int(run.info.start_time),
        tags=dict(tags),
        find=folder,
        load=partial(_scalars, folder, run.data.metrics),
    )


def _scalars(find: Callable[[], Path], metrics: Mapping[str, float]) -> dict[str, float]:
    """Return a cell's scalars, including those of its optional stages. Earlier versions stored all of them as metrics."""
    folder = find()
    if not (folder / records.SCALARS_FILE).is_file():
        return {name: value for name, value in metrics.items() if "/" not in name}
    files = sorted(folder.glob(f"{Path(records.SCALARS_FILE).stem}*.json"))
    return {name: value for path in files for name, value in json.loads(path.read_text()).items()}


def require_artifacts(find: Callable[[], Path], owner: str) -> Path:
    """Return the folder of a cell's artifacts.

    Raises:
        InputError: The folder does not exist. Without this check, the cell would silently be missing from every table.
    """
    folder = find()
    if not folder.is_dir():
        fix = "restore them from a copy of the runs folder, or delete the run in MLflow and run the grid again"
        raise InputError("the artifacts of a recorded cell are gone", got=f"{owner}: there is no {folder}", fix=fix)
    return folder


def _intact(record: Record) -> bool:
    """Return whether a record's artifacts are there."""
    try:
        return record.folder.is_dir()
    except UnavailableError:
        raise
    except InputError:
        return False


def _complete(run: Any) -> bool:
    tags = run.data.tags
    return records.TAG_COMPLETE in tags and tags[records.TAG_COMPLETE] == tags.get(records.TAG_CELL_HASH)
