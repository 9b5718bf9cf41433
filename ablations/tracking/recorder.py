"""Record what a grid's invocation makes: each run is put into the outbox first, and carried from there to MLflow.

One experiment a grid, in which every run is a cell, named ``arm/seed``; beside it one for the invocations and all else
(`records.EXPERIMENT_BESIDE`). A cell counts only by its tag ``complete = <cell hash>``, which is written last. A store that does
not answer holds nobody up: records wait in the outbox, and every command that opens the runs folder carries them over.
"""

from __future__ import annotations

import getpass
import json
import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ablations.execution.cell_file import CELL_FILE, cell_json
from ablations.execution.environment import dirty_diff
from ablations.execution.failures import Lost, kind_of
from ablations.execution.runs_folder import RunsFolder
from ablations.tracking import page, plugin_files, records
from ablations.tracking.connection import UnavailableError, answering, ensure_experiment, open_client, trouble
from ablations.tracking.curves import Point
from ablations.tracking.invocations import asked
from ablations.tracking.outbox import Entry, new_key
from ablations.tracking.reader import waiting_record
from ablations.tracking.reconcile import owner_tags, reconcile
from ablations.tracking.records import Record
from ablations.tracking.replay import Replay
from rrpo.identity import content_hash
from rrpo.pipeline.cell import Cell
from rrpo.pipeline.effective import effective
from rrpo.pipeline.stages import MARKER, walk
from rrpo.settings import text


def create(folder: RunsFolder, grid: str, arms: Iterable[str] = ()) -> None:
    """Create folder, store and the grid's experiment where they are missing, and put the store in order.

    The experiment's page groups these ``arms``.

    Under a lock and before any worker starts: several processes that open a fresh sqlite store break it for good.
    Raises InputError when the disk is full, UnavailableError when the store does not answer.
    """
    folder.make()
    with folder.lock():
        if why := trouble(folder):
            raise UnavailableError(folder, why)
        with answering(folder):
            client = open_client(folder)
            experiment = ensure_experiment(client, folder, grid)
            if named := list(arms):
                page.prepare(client, experiment, named)
            if not folder.exists:
                folder.write_marker()
    folder.relocate()
    Replay(folder).carry()
    with answering(folder):
        reconcile(client)


@dataclass
class Tracker:
    """Records the runs of one grid's invocation, from the parent process alone."""

    folder: RunsFolder
    """Where outbox and store lie."""
    grid: str
    """Name of grid and experiment."""
    tags: Mapping[str, str]
    """Tags of every run: git sha, dirty, ..."""
    environment: Mapping[str, str]
    """Content of the artifact ``environment.json``."""
    invocation: Entry | None = None
    """The invocation's run."""
    _held: dict[str, tuple[Entry, Mapping[str, str]]] = field(default_factory=dict)
    """Entries and texts: what a full disk has not taken yet, by key."""

    @cached_property
    def replay(self) -> Replay:
        """Carries the outbox over to the store."""
        return Replay(self.folder)

    def start_invocation(self, cells: Sequence[Cell], params: Mapping[str, str]) -> Tracker:
        """Start the invocation's run, with the planned numbers; the tracker of its cells."""
        tags = {records.TAG_PROFILE: cells[0].profile.name, records.TAG_WORLD_HASH: cells[0].world_hash}
        counts = {"planned_n": str(len({c.seed for c in cells})), "planned_cells": str(len(cells))}
        name = f"{self.grid} {time.strftime('%Y-%m-%d %H:%M:%S')}"
        entry = self._entry(new_key("parent"), name, "parent", tags, counts | asked(cells).params() | dict(params))
        below = replace(self, invocation=entry, _held={})
        below._update_invocation()
        return below

    def note_spread(self, spread: float, seeds: int) -> None:
        """Set the spread over so many seeds (`records.PAIR_SPREAD`) in the invocation's run."""
        self._update_invocation(metrics={records.PAIR_SPREAD: spread}, step=seeds)

    def end_invocation(self, status: str) -> None:
        """Close the invocation's run: ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self._update_invocation(status=status)

    def _update_invocation(self, **fields: Any) -> None:
        assert self.invocation is not None
        self.invocation = replace(self.invocation, **fields)
        self._note(self.invocation, plugin_files.copies())

    def show_cell(self, cell: Cell, points: Sequence[Point]) -> None:
        """Show a cell at work, with new points of its curves."""
        self.replay.show(self._cell_entry(cell), points)

    def record_cell(
        self, cell: Cell, scalars: Mapping[str, float], files: Mapping[str, Path], log: str, primary: float = math.nan
    ) -> Record:
        """Record one finished cell: params, metrics, curves, artifacts, and the completion tag last.

        ``primary`` is the cell's primary outcome. Raises OSError when the disk is full; the task is then tried again.
        """
        everything = _finite(scalars)
        shown = everything | _finite({"clean_success": primary})
        entry = replace(
            self._cell_entry(cell, {records.TAG_DATA_HASH: data_hash(cell)} | _built_by(files)),
            status="FINISHED",
            metrics={name: value for name, value in shown.items() if name in records.METRICS},
            datasets=datasets(cell),
            complete=True,
        )
        self._put(entry, files, self._texts(cell, log) | {records.SCALARS_FILE: json.dumps(everything, indent=1)})
        return waiting_record(entry, self.replay)

    def add_optional(
        self, cell: Cell, roles: Iterable[str], scalars: Mapping[str, float], files: Mapping[str, Path]
    ) -> None:
        """Add what the optional stages of some ``roles`` found to the complete record of a cell."""
        named = ",".join(sorted(roles))
        entry = Entry(
            key=f"optional-{content_hash([self.grid, cell.hash, named])[:24]}",
            experiment=self.grid,
            name=cell.name,
            tags={records.TAG_OPTIONAL: named},
            cell=cell.hash,
            adds=True,
        )
        name = f"{Path(records.SCALARS_FILE).stem}.{named}.json"
        self._put(entry, files, {name: json.dumps(_finite(scalars), indent=1)})

    def record_failure(self, cell: Cell, lost: Lost, log: str) -> None:
        """Record that a cell failed, why, and the log with the traceback."""
        why = {records.TAG_FAILED: lost.reason[: records.TEXT_LIMIT], records.TAG_FAILURE_KIND: lost.kind}
        self._note(replace(self._cell_entry(cell, why), status="FAILED"), self._texts(cell, log))

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
        """Record one finished run that is no cell's: ``kind`` as in `records.TAG_KIND`. The same ``key`` is recorded once."""
        unique = f"{kind}-{content_hash([self.grid, key])[:24]}" if key else new_key(kind)
        entry = self._entry(unique, name, kind, tags, params)
        self._put(replace(entry, metrics=_finite(metrics), status="FINISHED"), files, self._provenance())

    def held_up(self) -> str:
        """Try again to write what a full disk holds up; how much still waits for room and why, empty when nothing does."""
        try:
            for key, (entry, texts) in list(self._held.items()):
                self.replay.outbox.put(entry, {}, texts)
                del self._held[key]
        except OSError as error:
            if kind_of(error) != "disk":
                raise
            return f"{len(self._held)} records: {error}"
        return ""

    def waiting(self) -> str:
        """How many records the store has not taken and why, as a sentence; empty when it has all. Tries once more."""
        self.replay.carry(force=True)
        return self.replay.waiting()

    def _cell_entry(self, cell: Cell, tags: Mapping[str, str] | None = None) -> Entry:
        """The run of a cell while it is at work; its key is the cell's, so that there is one."""
        key = f"cell-{content_hash([self.grid, cell.hash])[:24]}"
        params = {"invocation": self.invocation.name} if self.invocation else {}
        entry = self._entry(key, cell.name, "cell", _cell_tags(cell) | dict(tags or {}), cell_params(cell) | params)
        return replace(entry, experiment=self.grid, cell=cell.hash)

    def _entry(self, key: str, name: str, kind: str, tags: Mapping[str, str], params: Mapping[str, str]) -> Entry:
        invocation = self.invocation.key if self.invocation else key
        fixed = {records.TAG_KIND: kind, records.TAG_GRID: self.grid, records.TAG_INVOCATION: invocation}
        everything = fixed | source_tags(self.tags) | owner_tags() | plugin_files.tags() | dict(self.tags) | dict(tags)
        beside = "" if self.grid == records.EXPERIMENT_WORLD else records.EXPERIMENT_BESIDE
        return Entry(key=key, experiment=f"{beside}{self.grid}", name=name, tags=everything, params=params)

    def _note(self, entry: Entry, texts: Mapping[str, str] | None = None) -> None:
        """As `_put`, of what belongs to no task that would be tried again: a full disk holds it up and nobody else."""
        self._held[entry.key] = entry, texts or {}
        if not self.held_up():
            self.replay.carry()

    def _put(self, entry: Entry, files: Mapping[str, Path], texts: Mapping[str, str]) -> None:
        self.replay.outbox.put(entry, files, texts)
        self.replay.carry()

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


def source_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Who ran what, under the names that MLflow's UI shows."""
    found = {"mlflow.user": getpass.getuser(), "mlflow.source.type": "LOCAL"}
    found["mlflow.source.name"] = tags.get("command", "").split(" ")[0] or Path(sys.argv[0]).name
    sha = tags.get(records.TAG_SHA, "unknown")
    return found | ({} if sha == "unknown" else {"mlflow.source.git.commit": sha})


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
    return {"arm": cell.label, "seed": str(cell.seed), "profile": cell.profile.name} | ran_with


def datasets(cell: Cell) -> dict[str, str]:
    """What a cell was made from, name -> digest, as MLflow's inputs: its world, its reward model, the prompts."""
    made = {
        stage.name: stage.key[:16] for stage in walk(*cell.stages.values())
    }  # a fine-tuned model comes after its start
    named = {"reward model": made.get("finetune") or made.get("pretrain"), "SFT policy": made.get("sft")}
    prompts = [stage.key for stage in walk(*cell.stages.values()) if stage.name == "prompts"]
    named["prompts"] = content_hash(prompts)[:16] if prompts else None
    return {"world": cell.world_hash} | {name: digest for name, digest in named.items() if digest}


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
