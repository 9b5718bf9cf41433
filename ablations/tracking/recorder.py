"""Record the runs of a grid's invocation: each run is written to the outbox first, and from there to MLflow.

Each grid has one experiment whose runs are cells, named ``arm/seed``, and a second experiment for invocations and other runs
(`records.EXPERIMENT_ABOUT`). A cell counts as complete only if its run has the tag ``complete = <cell hash>``, which is written
last. An unavailable store does not block a run: records wait in the outbox, and every command that opens the runs folder tries to
write them.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ablations.failures import Lost, kind_of
from ablations.tracking import page, plugin_files, records
from ablations.tracking.cell_file import CELL_FILE, cell_json
from ablations.tracking.connection import (
    UnavailableError,
    answering,
    create_store,
    ensure_experiment,
    open_client,
    trouble,
)
from ablations.tracking.curves import Point
from ablations.tracking.invocations import plan_invocation
from ablations.tracking.outbox import Entry, key_for, new_key, now
from ablations.tracking.reader import Store, waiting_record
from ablations.tracking.reconcile import owner_tags
from ablations.tracking.records import Record
from ablations.tracking.replay import Replay
from ablations.tracking.run_files import files_in
from ablations.tracking.runs_folder import RunsFolder
from ablations.tracking.source_version import dirty_diff
from rrpo.experiment.cell import Cell
from rrpo.experiment.effective import effective
from rrpo.identity import content_hash
from rrpo.pipeline.stages import MARKER, walk
from rrpo.settings import text


def create(folder: RunsFolder, grid: str, arms: Iterable[str] = ()) -> None:
    """Create the folder, the store and the grid's experiment if they are missing, and apply pending updates to the store.

    Call this before any worker starts. It holds a lock, because several processes that open a new SQLite store at the same time
    corrupt it permanently.

    Args:
        folder: The runs folder.
        grid: Name of the grid and of its experiment.
        arms: Arms by which the experiment's page is grouped.

    Raises:
        InputError: The disk is full.
        UnavailableError: The store does not answer.
    """
    folder.make()
    with folder.lock():
        if reason := trouble(folder):
            raise UnavailableError(folder, reason)
        with answering(folder):
            create_store(folder)
            client = open_client(folder)
            experiment = ensure_experiment(client, folder, grid)
            if labels := list(arms):
                page.prepare(client, experiment, labels)
            if not folder.exists:
                folder.write_marker()
    _ = Store(folder).client  # its first access applies pending updates


@dataclass
class Tracker:
    """Records the runs of one grid's invocation. Used only in the parent process."""

    folder: RunsFolder
    """The runs folder with the outbox and the store."""
    grid: str
    """Name of the grid and of its experiment."""
    tags: Mapping[str, str]
    """Tags of every run: git sha, dirty, ..."""
    environment: Mapping[str, str]
    """Content of the artifact ``environment.json``."""
    invocation: Entry | None = None
    """The invocation's run."""
    _held: dict[str, tuple[Entry, Mapping[str, str]]] = field(default_factory=dict)
    """Key -> entry and its artifacts that could not be written yet because the disk is full."""

    @cached_property
    def replay(self) -> Replay:
        """Writes the outbox to the store."""
        return Replay(self.folder)

    def start_invocation(self, cells: Sequence[Cell], params: Mapping[str, str]) -> Tracker:
        """Start the invocation's run, which records the planned numbers, and return the tracker of its cells."""
        tags = {records.TAG_PROFILE: cells[0].profile.name, records.TAG_WORLD_HASH: cells[0].world_hash}
        counts = {"planned_n": str(len({c.seed for c in cells})), "planned_cells": str(len(cells))}
        name = f"{self.grid} {time.strftime('%Y-%m-%d %H:%M:%S')}"
        entry = self._entry(
            new_key("parent"), name, "parent", tags, counts | plan_invocation(cells).params() | dict(params)
        )
        tracker = replace(self, invocation=entry, _held={})
        tracker._update_invocation()
        return tracker

    def end_invocation(self, status: str) -> None:
        """Close the invocation's run with status ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self._update_invocation(status=status, ended=now())

    def _update_invocation(self, **fields: Any) -> None:
        assert self.invocation is not None
        self.invocation = replace(self.invocation, **fields)
        self._put_or_hold(self.invocation, plugin_files.copies())

    def show_cell(self, cell: Cell, points: Sequence[Point]) -> None:
        """Show a running cell in MLflow with new points of its curves."""
        self.replay.show(self._cell_entry(cell), points)

    def record_cell(
        self, cell: Cell, scalars: Mapping[str, float], files: Mapping[str, Path], log: str, primary: float = math.nan
    ) -> Record:
        """Record one finished cell: params, metrics, curves, artifacts and, last, the completion tag.

        Args:
            cell: The cell.
            scalars: Its scalars.
            files: Artifact name -> file.
            log: Its log.
            primary: Its primary outcome, NaN if it has none.

        Raises:
            OSError: The disk is full. The scheduler then retries the task.
        """
        finite = _finite(scalars)
        metrics = finite | _finite({"clean_success": primary})
        entry = replace(
            self._cell_entry(cell, {records.TAG_DATA_HASH: data_hash(cell)} | _built_by(files)),
            status="FINISHED",
            metrics={name: value for name, value in metrics.items() if name in records.METRICS},
            datasets=datasets(cell),
            complete=True,
        )
        self._put(entry, {**files, **self._texts(cell, log), records.SCALARS_FILE: json.dumps(finite, indent=1)})
        return waiting_record(entry, self.replay)

    def copy_cell(self, cell: Cell, record: Record, primary: float = math.nan) -> Record:
        """Record a cell with the numbers, artifacts and provenance (`records.ORIGIN`) of another grid's record of it.

        Args:
            cell: The cell.
            record: The other grid's record.
            primary: Its primary outcome, NaN if it has none.

        Raises:
            OSError: The disk is full. The scheduler then retries the task.
        """
        first = record.tags.get(records.TAG_COPIED, record.tags[records.TAG_GRID])
        entry = self._cell_entry(cell, {records.TAG_COPIED: first})
        own = {name: value for name, value in entry.tags.items() if name not in records.ORIGIN}
        metrics = _finite({**record.scalars, "clean_success": primary})
        entry = replace(
            entry,
            tags=own | {name: record.tags[name] for name in records.ORIGIN if name in record.tags},
            status="FINISHED",
            metrics={name: value for name, value in metrics.items() if name in records.METRICS},
            datasets=datasets(cell),
            complete=True,
        )
        files = files_in(record.folder)
        scalars = {} if records.SCALARS_FILE in files else {records.SCALARS_FILE: json.dumps(_finite(record.scalars))}
        self._put(entry, {**files, **scalars, **_config(cell)})
        return waiting_record(entry, self.replay)

    def add_optional(self, cell: Cell, role: str, scalars: Mapping[str, float], files: Mapping[str, Path]) -> None:
        """Add the results of the optional stage ``role`` to the complete record of a cell."""
        entry = addition(self.grid, cell.name, cell.hash, [role])
        name = f"{Path(records.SCALARS_FILE).stem}.{role}.json"
        self._put(entry, {**files, name: json.dumps(_finite(scalars), indent=1)})

    def record_failure(self, cell: Cell, lost: Lost, log: str) -> None:
        """Record that a cell failed, with the reason and the log that contains the traceback."""
        tags = {records.TAG_FAILED: lost.reason[: records.TEXT_LIMIT], records.TAG_FAILURE_KIND: lost.kind}
        self._put_or_hold(replace(self._cell_entry(cell, tags), status="FAILED"), self._texts(cell, log))

    def record(
        self,
        kind: str,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        files: Mapping[str, Path],
        key: str = "",
    ) -> None:
        """Record one finished run that is not a cell's. ``kind`` is as in `records.TAG_KIND`; each ``key`` is recorded once."""
        entry = self._entry(self.key_of(kind, key) if key else new_key(kind), name, kind, tags, params)
        self._put(replace(entry, metrics=_finite(metrics), status="FINISHED"), {**files, **self._provenance()})

    def key_of(self, kind: str, key: str) -> str:
        """Return the key (`records.TAG_ENTRY`) of the run that `record` makes for a key."""
        return key_for(kind, [self.grid, key])

    def held_up(self) -> str:
        """Retry writing what a full disk holds up. Return how much still waits and why; empty if nothing does."""
        try:
            for key, (entry, artifacts) in list(self._held.items()):
                self.replay.outbox.put(entry, artifacts)
                del self._held[key]
        except OSError as error:
            if kind_of(error) != "disk":
                raise
            return f"{len(self._held)} records: {error}"
        return ""

    def waiting(self) -> str:
        """Retry writing the outbox to the store. Return a sentence on what still waits and why; empty if nothing does."""
        self.replay.flush(force=True)
        return self.replay.waiting()

    def _cell_entry(self, cell: Cell, tags: Mapping[str, str] | None = None) -> Entry:
        """Return the entry of a running cell. Its key depends only on grid and cell hash, so that each cell has a single run."""
        key = key_for("cell", [self.grid, cell.hash])
        params = {"invocation": self.invocation.name} if self.invocation else {}
        cell_tags = {
            records.TAG_ARM: cell.label,
            records.TAG_SEED: str(cell.seed),
            records.TAG_ARM_HASH: cell.arm_hash,
            records.TAG_CELL_HASH: cell.hash,
            records.TAG_WORLD_HASH: cell.world_hash,
            records.TAG_PROFILE: cell.profile.name,
        }
        entry = self._entry(key, cell.name, "cell", cell_tags | dict(tags or {}), cell_params(cell) | params)
        return replace(entry, experiment=self.grid, cell=cell.hash)

    def _entry(self, key: str, name: str, kind: str, tags: Mapping[str, str], params: Mapping[str, str]) -> Entry:
        invocation = self.invocation.key if self.invocation else key
        fixed = {records.TAG_KIND: kind, records.TAG_GRID: self.grid, records.TAG_INVOCATION: invocation}
        all_tags = fixed | source_tags(self.tags) | owner_tags() | plugin_files.tags() | dict(self.tags) | dict(tags)
        beside = "" if self.grid == records.EXPERIMENT_WORLD else records.EXPERIMENT_ABOUT
        return Entry(key=key, experiment=f"{beside}{self.grid}", name=name, tags=all_tags, params=params)

    def _put_or_hold(self, entry: Entry, artifacts: Mapping[str, str]) -> None:
        """Put an entry into the outbox; on a full disk, keep it in memory until `held_up` can write it.

        For entries that belong to no task, which the scheduler would retry.
        """
        self._held[entry.key] = entry, artifacts
        if not self.held_up():
            self.replay.flush()

    def _put(self, entry: Entry, artifacts: Mapping[str, Path | str]) -> None:
        self.replay.outbox.put(entry, artifacts)
        self.replay.flush()

    def _texts(self, cell: Cell, log: str) -> dict[str, str]:
        return self._provenance() | _config(cell) | {"log.txt": log or "nothing was logged\n"}

    def _provenance(self) -> dict[str, str]:
        texts = {records.ENVIRONMENT_FILE: json.dumps(dict(self.environment), indent=1)}
        diff = dirty_diff() if self.tags.get(records.TAG_DIRTY) == "true" else ""
        return texts | plugin_files.copies() | ({"dirty.diff": diff} if diff else {})


def addition(grid: str, name: str, cell: str, roles: Iterable[str]) -> Entry:
    """Return the entry that adds the results of optional stages to the complete run of the cell with the hash ``cell``."""
    joined = ",".join(sorted(roles))
    return Entry(
        key=key_for("optional", [grid, cell, joined]),
        experiment=grid,
        name=name,
        tags={records.TAG_OPTIONAL: joined},
        cell=cell,
        adds=True,
    )


def source_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return user, source and commit as the tags that MLflow's UI shows."""
    ui_tags = {"mlflow.user": _user(), "mlflow.source.type": "LOCAL"}
    ui_tags["mlflow.source.name"] = tags.get("command", "").split(" ")[0] or Path(sys.argv[0]).name
    sha = tags.get(records.TAG_SHA, "unknown")
    return ui_tags | ({} if sha == "unknown" else {"mlflow.source.git.commit": sha})


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def cell_params(cell: Cell) -> dict[str, str]:
    """Return the params of a cell's run: which cell it is, and its effective settings."""
    settings = {name: text(value) for name, value in effective(cell).items()}
    return {"arm": cell.label, "seed": str(cell.seed), "profile": cell.profile.name} | settings


def datasets(cell: Cell) -> dict[str, str]:
    """Return the inputs of a cell as MLflow datasets, name -> digest: world, reward model, SFT policy and prompts."""
    digests = {"world": cell.world_hash}
    for name, reader, role in (("reward model", "examined", "model"), ("SFT policy", "optimized", "policy")):
        if reader in cell.stages and role in cell.stages[reader].inputs:
            digests[name] = cell.stages[reader].inputs[role].key[:16]
    prompts = [stage.key for stage in walk(*cell.stages.values()) if stage.name == "prompts"]
    return digests | ({"prompts": content_hash(prompts)[:16]} if prompts else {})


def data_hash(cell: Cell) -> str:
    """Return the hash of all splits and prompt sets that a cell depends on, including the user's own audio."""
    keys = [stage.key for stage in walk(*cell.stages.values()) if stage.name in ("speech", "prompts")]
    return content_hash(sorted(keys))[:16]


def _config(cell: Cell) -> dict[str, str]:
    """Return the artifacts that say what the cell is."""
    return {records.CONFIG_FILE: json.dumps(cell.params(), indent=1), CELL_FILE: cell_json(cell)}


def _built_by(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the tag with the source hash that built the cell's own stages; it may be older than the recording source."""
    markers = [json.loads(path.read_text()) for path in files.values() if path.name == MARKER]
    sources = sorted({marker["source"] for marker in markers if "source" in marker})
    return {records.TAG_CODE: ",".join(sources)} if sources else {}


def _finite(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
