"""Read cells back from MLflow: what is complete, what failed, and the records that tables and figures are made of."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.failures import KINDS, Lost
from ablations.records import (
    EXPERIMENT_WORLD,
    PAIR_SPREAD,
    TAG_ARM,
    TAG_ARM_HASH,
    TAG_CELL_HASH,
    TAG_COMPLETE,
    TAG_FAILED,
    TAG_FAILURE_KIND,
    TAG_KIND,
    TAG_PROFILE,
    TAG_SEED,
    TAG_WORLD_HASH,
    Record,
)
from ablations.runs_folder import RunsFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient


def open_client(folder: RunsFolder) -> MlflowClient:
    """A client of the folder's store with telemetry off and quiet logs; MLflow is imported here and nowhere earlier."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=folder.tracking_uri)


@dataclass(frozen=True)
class Store:
    """Reads one runs folder, which must exist; a moved one has its artifact paths put right first."""

    folder: RunsFolder
    """Where the store lies."""

    @cached_property
    def client(self) -> MlflowClient:
        """The MLflow client."""
        self.folder.relocate()
        return open_client(self.folder)

    def grids(self) -> list[str]:
        """Names of all grids with an experiment."""
        return sorted(e.name for e in self.client.search_experiments() if e.name not in ("Default", EXPERIMENT_WORLD))

    def states(self, grid: str) -> tuple[dict[str, Record], dict[str, Lost]]:
        """Of a grid's cells by hash: the records of the complete ones, and why those that failed are not.

        Oldest first; a cell that was recorded twice is there once, by its newest run.
        """
        runs = self._runs(grid, "cell")
        done = {run.data.tags[TAG_CELL_HASH]: run for run in runs if _complete(run)}
        reasons = {r.data.tags[TAG_CELL_HASH]: _lost(r.data.tags) for r in runs if TAG_FAILED in r.data.tags}
        found = {key: self._record(run) for key, run in done.items()}
        return found, {key: reason for key, reason in reasons.items() if key not in done}

    def records(self, grid: str) -> list[Record]:
        """Every complete cell of a grid, each cell hash once."""
        return list(self.states(grid)[0].values())

    def looks(self, grid: str, profile: str, world: str) -> list[int]:
        """The planned numbers of seeds of a grid's invocations, rising: each is a declared look at the results."""
        mine = [
            run
            for run in self._runs(grid, "parent")
            if (run.data.tags.get(TAG_PROFILE), run.data.tags.get(TAG_WORLD_HASH)) == (profile, world)
        ]
        return sorted({int(run.data.params["planned_n"]) for run in mine if "planned_n" in run.data.params})

    def pair_spread(self, grid: str) -> float | None:
        """`records.PAIR_SPREAD` of the newest invocation that has one."""
        found = [run.data.metrics[PAIR_SPREAD] for run in self._runs(grid, "parent") if PAIR_SPREAD in run.data.metrics]
        return float(found[-1]) if found else None

    def invocations(self, grid: str) -> list[str]:
        """Run ids of a grid's invocations, oldest first."""
        return [str(run.info.run_id) for run in self._runs(grid, "parent")]

    def experiment_id(self, grid: str) -> str:
        """The grid's experiment in MLflow's addresses; empty when there is none."""
        found = self.client.get_experiment_by_name(grid)
        return str(found.experiment_id) if found else ""

    def newest_artifact(self, experiment: str, name: str) -> Path | None:
        """An artifact of an experiment's newest run that has it."""
        number = self.experiment_id(experiment)
        found = self.client.search_runs([number], order_by=["attributes.start_time DESC"]) if number else []
        paths = [_local(run.info.artifact_uri) / name for run in found]
        return next((path for path in paths if path.is_file()), None)

    def record(self, run_id: str) -> Record:
        """One cell by its run."""
        return self._record(self.client.get_run(run_id))

    def _runs(self, grid: str, kind: str) -> list[Any]:
        """All runs of a kind (`records.TAG_KIND`) of a grid, oldest first."""
        experiment = self.client.get_experiment_by_name(grid)
        if experiment is None:
            return []
        runs: list[Any] = []
        token = None
        while True:
            page = self.client.search_runs(
                [experiment.experiment_id],
                f"tags.{TAG_KIND} = '{kind}'",
                max_results=1000,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            runs += page
            token = page.token
            if not token:
                return runs

    def _record(self, run: Any) -> Record:
        tags = run.data.tags
        return Record(
            label=tags[TAG_ARM],
            seed=int(tags[TAG_SEED]),
            cell_hash=tags[TAG_CELL_HASH],
            arm_hash=tags[TAG_ARM_HASH],
            world_hash=tags[TAG_WORLD_HASH],
            profile=tags[TAG_PROFILE],
            scalars={name: value for name, value in run.data.metrics.items() if "/" not in name},
            params=dict(run.data.params),
            run_id=run.info.run_id,
            recorded=int(run.info.start_time),
            folder=_local(run.info.artifact_uri),
        )


def _lost(tags: Any) -> Lost:
    kind = tags.get(TAG_FAILURE_KIND, "bug")
    return Lost(kind if kind in KINDS else "bug", tags[TAG_FAILED])


def _complete(run: Any) -> bool:
    return TAG_COMPLETE in run.data.tags and run.data.tags[TAG_COMPLETE] == run.data.tags.get(TAG_CELL_HASH)


def _local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))
