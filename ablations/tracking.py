"""Write records to MLflow by the client API with explicit run ids.

One experiment a grid; one parent run an invocation; under it one summary run an arm and one run a cell, named
``arm/seed``. A cell counts only by its tag ``complete = <cell hash>``, which is written last.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ablations import records
from ablations.failures import Lost
from ablations.runs_folder import RunsFolder
from ablations.store import open_client
from rrpo.cell import Cell

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 1000
"""MLflow's limit of metrics a batch; its limit of params and tags is a tenth."""
TEXT_LIMIT = 5000
"""Longest tag, cut to be safe on every backend."""


def create(folder: RunsFolder, grid: str) -> None:
    """Create folder, store and the grid's experiment where they are missing.

    Under a lock and before any worker starts: several processes that open a fresh sqlite store break it for good.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    folder.relocate()
    with folder.lock():
        client = open_client(folder)
        if client.get_experiment_by_name(grid) is None:
            client.create_experiment(grid, artifact_location=str(folder.artifacts / grid))
        if not folder.exists:
            folder.write_marker()


@dataclass(frozen=True)
class Tracker:
    """Writes the runs of one grid's invocation, from the parent process alone."""

    folder: RunsFolder
    """Where the store lies."""
    grid: str
    """Name of grid and experiment."""
    tags: Mapping[str, str]
    """Tags of every run: git sha, dirty, ..."""
    environment: Mapping[str, str]
    """Content of the artifact ``environment.json``."""
    parent: str = ""
    """Run id of the invocation."""

    @cached_property
    def client(self) -> MlflowClient:
        """The MLflow client."""
        return open_client(self.folder)

    @cached_property
    def experiment(self) -> str:
        """The grid's experiment id."""
        found = self.client.get_experiment_by_name(self.grid)
        assert found is not None, "create() comes first"
        return str(found.experiment_id)

    def start_invocation(self, cells: Sequence[Cell], params: Mapping[str, str]) -> str:
        """The parent run, with the planned numbers; its id."""
        seeds, arms = sorted({c.seed for c in cells}), list(dict.fromkeys(c.label for c in cells))
        tags = {records.TAG_PROFILE: cells[0].profile.name, records.TAG_WORLD_HASH: cells[0].world_hash}
        run = self._create(f"{self.grid} {time.strftime('%Y-%m-%d %H:%M:%S')}", "parent", tags)
        planned = {"planned_n": len(seeds), "planned_cells": len(cells), "arms": ",".join(arms)}
        planned["seeds"] = ",".join(map(str, seeds))
        self._params(run, planned | dict(params))
        return run

    def start_arm(self, label: str, arm_hash: str) -> str:
        """The summary run of one arm in this invocation; its id."""
        return self._create(label, "arm", {records.TAG_ARM: label, records.TAG_ARM_HASH: arm_hash})

    def update_arm(self, run: str, numbers: Mapping[str, float], n: int) -> None:
        """Set the summary's metrics; ``n`` is the step, so that the newest counts."""
        self._metrics(run, [(name, value, n) for name, value in numbers.items()] + [("n", float(n), n)])

    def set_metric(self, run: str, name: str, value: float, step: int) -> None:
        """One number of a parent run."""
        self._metrics(run, [(name, value, step)])

    def complete_run(self, cell_hash: str) -> str | None:
        """The run that holds a complete record of a cell, if any process has written one."""
        wanted = f"tags.{records.TAG_COMPLETE} = '{cell_hash}'"
        found = self.client.search_runs([self.experiment], wanted, max_results=1)
        return str(found[0].info.run_id) if found else None

    def record_cell(self, cell: Cell, scalars: Mapping[str, float], files: Mapping[str, Path], log: str) -> str:
        """Write one finished cell: params, scalars, curves, artifacts, and the completion tag last. Its run id."""
        run = self._create(cell.name, "cell", self._cell_tags(cell))
        self._params(run, cell.params())
        self._metrics(run, [(name, value, 0) for name, value in scalars.items()])
        for name, prefix in records.CURVE_PREFIXES.items():
            if name in files:
                self._metrics(run, _curve(files[name], prefix))
        self._artifacts(run, files)
        self._texts(run, cell, log)
        self.client.set_terminated(run, "FINISHED")
        self.client.set_tag(run, records.TAG_COMPLETE, cell.hash)
        return run

    def record_failure(self, cell: Cell, lost: Lost, log: str) -> str:
        """Write that a cell failed, why, and the log with the traceback. Its run id."""
        why = {records.TAG_FAILED: lost.reason[:TEXT_LIMIT], records.TAG_FAILURE_KIND: lost.kind}
        run = self._create(cell.name, "cell", self._cell_tags(cell) | why)
        self._params(run, cell.params())
        self._texts(run, cell, log)
        self.client.set_terminated(run, "FAILED")
        return run

    def record_card(
        self, name: str, tags: Mapping[str, str], params: Mapping[str, str], metrics: Mapping[str, float], files: Path
    ) -> str:
        """Write one world card: every line's value as a metric, the files in the folder ``files``. Its run id."""
        run = self._create(name, "card", tags)
        self._params(run, params)
        self._metrics(run, [(key, value, 0) for key, value in metrics.items()])
        self.client.log_artifacts(run, str(files))
        self.client.log_dict(run, dict(self.environment), "environment.json")
        self.client.set_terminated(run, "FINISHED")
        return run

    def end(self, run: str, status: str) -> None:
        """Close a parent or arm run: ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self.client.set_terminated(run, status)

    def _cell_tags(self, cell: Cell) -> dict[str, str]:
        return {
            records.TAG_ARM: cell.label,
            records.TAG_SEED: str(cell.seed),
            records.TAG_ARM_HASH: cell.arm_hash,
            records.TAG_CELL_HASH: cell.hash,
            records.TAG_WORLD_HASH: cell.world_hash,
            records.TAG_PROFILE: cell.profile.name,
        }

    def _create(self, name: str, kind: str, tags: Mapping[str, str]) -> str:
        everything = {records.TAG_KIND: kind, records.TAG_GRID: self.grid} | dict(self.tags) | dict(tags)
        if self.parent:
            everything["mlflow.parentRunId"] = self.parent
        return str(self.client.create_run(self.experiment, run_name=name, tags=everything).info.run_id)

    def _params(self, run: str, params: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        rows = [Param(key, str(value)) for key, value in params.items()]
        size = BATCH // 10
        for start in range(0, len(rows), size):
            self.client.log_batch(run, params=rows[start : start + size])

    def _metrics(self, run: str, rows: Sequence[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        finite = [Metric(name, float(value), now, int(step)) for name, value, step in rows if math.isfinite(value)]
        for start in range(0, len(finite), BATCH):
            self.client.log_batch(run, metrics=finite[start : start + BATCH])

    def _artifacts(self, run: str, files: Mapping[str, Path]) -> None:
        for name, path in files.items():
            folder, _, last = name.rpartition("/")
            assert last == path.name, "an artifact keeps its file's name"
            self.client.log_artifact(run, str(path), folder or None)

    def _texts(self, run: str, cell: Cell, log: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {
                "config.json": json.dumps(cell.params(), indent=1),
                "environment.json": json.dumps(dict(self.environment), indent=1),
                "log.txt": log or "nothing was logged\n",
            }.items():
                (Path(folder) / name).write_text(text)
            self.client.log_artifacts(run, folder)


def _curve(path: Path, prefix: str) -> list[tuple[str, float, int]]:
    import pandas as pd

    table = pd.read_parquet(path)
    if "step" not in table.columns:  # an arm of no steps has an empty table
        return []
    numbers = table.select_dtypes("number").drop(columns="step").astype(float)
    columns = {f"{prefix}{name}": numbers[name].to_numpy() for name in numbers.columns}
    steps = table["step"].to_numpy()
    return [(name, float(v), int(s)) for name, values in columns.items() for v, s in zip(values, steps, strict=True)]
