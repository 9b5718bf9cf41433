"""Record what a grid's invocation makes: each run is put into the spool first, and from there into MLflow.

One experiment a grid; one parent run an invocation; under it one summary run an arm and one run a cell, named
``arm/seed``. A cell counts only by its tag ``complete = <cell hash>``, which is written last. A store that does not answer
holds nobody up: records wait in the spool, and every command that opens the runs folder carries them over.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ablations.execution.cell_file import CELL_FILE, cell_json
from ablations.execution.environment import dirty_diff
from ablations.execution.failures import Lost, kind_of
from ablations.execution.runs_folder import RunsFolder
from ablations.tracking import plugin_files, records
from ablations.tracking.connection import UnavailableError, answering, ensure_experiment, open_client, trouble
from ablations.tracking.invocations import asked
from ablations.tracking.outbox import Entry, new_key, now
from ablations.tracking.reader import waiting_record
from ablations.tracking.reconcile import owner_tags, reconcile
from ablations.tracking.records import Record
from ablations.tracking.replay import Replay
from rrpo.identity import content_hash
from rrpo.pipeline.cell import Cell
from rrpo.pipeline.effective import effective
from rrpo.pipeline.stages import MARKER, Stage, walk
from rrpo.settings import text


def create(folder: RunsFolder, grid: str) -> None:
    """Create folder, store and the grid's experiment where they are missing, and put the store in order.

    Under a lock and before any worker starts: several processes that open a fresh sqlite store break it for good.
    Raises InputError when the disk is full, UnavailableError when the store does not answer.
    """
    folder.make()
    with folder.lock():
        if why := trouble(folder):
            raise UnavailableError(folder, why)
        with answering(folder):
            client = open_client(folder)
            ensure_experiment(client, folder, grid)
            if not folder.exists:
                folder.write_marker()
    folder.relocate()
    Replay(folder).carry()
    with answering(folder):
        reconcile(client)


@dataclass(frozen=True)
class Tracker:
    """Records the runs of one grid's invocation, from the parent process alone."""

    folder: RunsFolder
    """Where spool and store lie."""
    grid: str
    """Name of grid and experiment."""
    tags: Mapping[str, str]
    """Tags of every run: git sha, dirty, ..."""
    environment: Mapping[str, str]
    """Content of the artifact ``environment.json``."""
    parent: str = ""
    """Key of the invocation."""
    _open: dict[str, Entry] = field(default_factory=dict)
    """Runs that have not ended, by key."""
    _held: dict[str, Entry] = field(default_factory=dict)
    """What a full disk has not taken yet, by key, parents first."""

    @cached_property
    def replay(self) -> Replay:
        """Carries the spool over to the store."""
        return Replay(self.folder)

    def start_invocation(self, cells: Sequence[Cell], params: Mapping[str, str]) -> Tracker:
        """Start the parent run, with the planned numbers; the tracker of what runs below it."""
        tags = {records.TAG_PROFILE: cells[0].profile.name, records.TAG_WORLD_HASH: cells[0].world_hash}
        counts = {"planned_n": str(len({c.seed for c in cells})), "planned_cells": str(len(cells))}
        name = f"{self.grid} {time.strftime('%Y-%m-%d %H:%M:%S')}"
        entry = self._entry(new_key("parent"), name, "parent", tags, counts | asked(cells).params() | dict(params))
        entry = replace(entry, texts=plugin_files.copies())
        below = replace(self, parent=entry.key, _open={}, _held={})
        below._start(entry)
        return below

    def start_arm(self, label: str, arm_hash: str) -> str:
        """The summary run of one arm in this invocation; its key."""
        tags = {records.TAG_ARM: label, records.TAG_ARM_HASH: arm_hash}
        return self._start(self._entry(new_key("arm"), label, "arm", tags))

    def update_arm(self, run: str, numbers: Mapping[str, float], n: int) -> None:
        """Set the summary's metrics; ``n`` is the step, so that the newest counts."""
        metrics = _finite(numbers) | {"n": float(n)}
        self._open[run] = replace(self._open[run], metrics=metrics, step=n, measured=now())
        self._note(self._open[run])

    def set_metric(self, run: str, name: str, value: float, step: int) -> None:
        """One number of a parent run."""
        metrics = dict(self._open[run].metrics) | _finite({name: value})
        self._open[run] = replace(self._open[run], metrics=metrics, step=step, measured=now())
        self._note(self._open[run])

    def end(self, run: str, status: str) -> None:
        """Close a parent or arm run: ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self._note(replace(self._open.pop(run), status=status))

    def record_cell(self, cell: Cell, scalars: Mapping[str, float], files: Mapping[str, Path], log: str) -> Record:
        """Record one finished cell: params, scalars, curves, artifacts, and the completion tag last.

        Raises OSError when the disk is full; the task is then tried again.
        """
        key = f"cell-{content_hash([self.grid, cell.hash])[:24]}"
        tags = _cell_tags(cell) | {records.TAG_DATA_HASH: data_hash(cell)} | _built_by(files)
        entry = replace(
            self._entry(key, cell.name, "cell", tags, cell_params(cell)),
            status="FINISHED",
            metrics=_finite(scalars),
            complete=cell.hash,
        )
        self._put(replace(entry, texts=self._texts(cell, log)), files)
        return waiting_record(entry, self.replay)

    def add_optional(
        self, cell: Cell, roles: Iterable[str], scalars: Mapping[str, float], files: Mapping[str, Path]
    ) -> None:
        """Add what the optional stages of some ``roles`` found to the complete record of a cell."""
        named = ",".join(sorted(roles))
        key = f"optional-{content_hash([self.grid, cell.hash, named])[:24]}"
        entry = self._entry(key, cell.name, "cell", {records.TAG_OPTIONAL: named})
        self._put(replace(entry, metrics=_finite(scalars), amends=cell.hash), files)

    def record_failure(self, cell: Cell, lost: Lost, log: str) -> None:
        """Record that a cell failed, why, and the log with the traceback."""
        why = {records.TAG_FAILED: lost.reason[: records.TEXT_LIMIT], records.TAG_FAILURE_KIND: lost.kind}
        entry = self._entry(new_key("failure"), cell.name, "cell", _cell_tags(cell) | why, cell_params(cell))
        self._note(replace(entry, status="FAILED", texts=self._texts(cell, log)))

    def record_card(
        self, name: str, tags: Mapping[str, str], params: Mapping[str, str], metrics: Mapping[str, float], files: Path
    ) -> None:
        """Record one world card: every line's value as a metric, the files in the folder ``files``."""
        entry = replace(self._entry(new_key("card"), name, "card", tags, params), metrics=_finite(metrics))
        found = {path.relative_to(files).as_posix(): path for path in files.rglob("*") if path.is_file()}
        self._put(replace(entry, status="FINISHED", texts=self._provenance()), found)

    def record_stage(
        self,
        kind: str,
        stage: Stage,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        files: Mapping[str, Path],
    ) -> None:
        """Record one finished stage that belongs to no cell, once: ``kind`` as in `records.TAG_KIND`."""
        entry = self._entry(f"{kind}-{content_hash([self.grid, stage.key])[:24]}", str(stage), kind, tags, params)
        self._put(replace(entry, metrics=_finite(metrics), status="FINISHED", texts=self._provenance()), files)

    def held_up(self) -> str:
        """Try again to write what a full disk holds up; how much still waits for room and why, empty when nothing does."""
        try:
            self._flush()
        except OSError as error:
            if kind_of(error) != "disk":
                raise
            return f"{len(self._held)} records: {error}"
        return ""

    def waiting(self) -> str:
        """How many records the store has not taken and why, as a sentence; empty when it has all. Tries once more."""
        self.replay.carry(force=True)
        return self.replay.waiting()

    def _entry(
        self, key: str, name: str, kind: str, tags: Mapping[str, str], params: Mapping[str, str] | None = None
    ) -> Entry:
        fixed = {records.TAG_KIND: kind, records.TAG_GRID: self.grid, records.TAG_INVOCATION: self.parent or key}
        everything = fixed | owner_tags() | plugin_files.tags() | dict(self.tags) | dict(tags)
        time_of_all = now()
        return Entry(
            key=key,
            grid=self.grid,
            name=name,
            started=time_of_all,
            measured=time_of_all,
            tags=everything,
            params=params or {},
            parent=self.parent,
        )

    def _start(self, entry: Entry) -> str:
        self._open[entry.key] = entry
        self._note(entry)
        return entry.key

    def _note(self, entry: Entry) -> None:
        """As `_put`, of what belongs to no task that would be tried again: a full disk holds it up and nobody else."""
        self._held[entry.key] = entry
        if not self.held_up():
            self.replay.carry()

    def _put(self, entry: Entry, files: Mapping[str, Path] | None = None) -> None:
        self._flush()  # first, since a run in MLflow is made below a parent that is there
        self.replay.spool.put(entry, files)
        self.replay.carry()

    def _flush(self) -> None:
        for key, entry in list(self._held.items()):
            self.replay.spool.put(entry)
            del self._held[key]

    def _texts(self, cell: Cell, log: str) -> dict[str, str]:
        return self._provenance() | {
            records.CONFIG_FILE: json.dumps(cell.params(), indent=1),
            CELL_FILE: cell_json(cell),
            "log.txt": log or "nothing was logged\n",
        }

    def _provenance(self) -> dict[str, str]:
        texts = {"environment.json": json.dumps(dict(self.environment), indent=1)}
        diff = dirty_diff() if self.tags.get(records.TAG_DIRTY) == "true" else ""
        return texts | plugin_files.copies() | ({"dirty.diff": diff} if diff else {})


def _cell_tags(cell: Cell) -> dict[str, str]:
    return {
        records.TAG_ARM: cell.label,
        records.TAG_SEED: str(cell.seed),
        records.TAG_ARM_HASH: cell.arm_hash,
        records.TAG_CELL_HASH: cell.hash,
        records.TAG_WORLD_HASH: cell.world_hash,
        records.TAG_PROFILE: cell.profile.name,
    }


def cell_params(cell: Cell) -> dict[str, str]:
    """The params of a cell's run: which cell it is, and what it ran with."""
    ran_with = {name: text(value) for name, value in effective(cell).items()}
    return {"label": cell.label, "seed": str(cell.seed), "profile": cell.profile.name} | ran_with


def data_hash(cell: Cell) -> str:
    """Hash of every split and prompt set below a cell, the user's own audio included."""
    below = [stage.key for stage in walk(*cell.stages.values()) if stage.name in ("speech", "prompts")]
    return content_hash(sorted(below))[:16]


def _built_by(files: Mapping[str, Path]) -> dict[str, str]:
    """The source that built the cell's own stages, which may be older than the source that records them."""
    markers = [json.loads(path.read_text()) for name, path in files.items() if path.name == MARKER]
    found = sorted({marker["source"] for marker in markers if "source" in marker})
    return {records.TAG_CODE: ",".join(found)} if found else {}


def _finite(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
