"""What the newest invocation of a grid planned, on disk beside the store, so that `ablations.status` needs no grid's code."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.jobs import stage_key
from ablations.runs_folder import RunsFolder
from rrpo.cell import Cell
from rrpo.stages import walk


@dataclass(frozen=True)
class PlannedCell:
    """One cell of an invocation."""

    name: str
    """``arm/seed``."""
    hash: str
    """Identity of the result."""
    stages: tuple[tuple[str, str], ...]
    """(folder's name, log's name) of every stage below it, inputs first."""


def write_plan(folder: RunsFolder, grid: str, cells: Sequence[Cell]) -> None:
    """Keep what is planned, in one step."""
    path = _path(folder, grid)
    path.parent.mkdir(exist_ok=True)
    rows = [[c.name, c.hash, [[s.path(Path()).name, stage_key(s)] for s in walk(*c.stages.values())]] for c in cells]
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(rows))
    os.replace(partial, path)


def read_plan(folder: RunsFolder, grid: str) -> list[PlannedCell]:
    """The cells of the newest invocation in its order; none before the first."""
    path = _path(folder, grid)
    if not path.is_file():
        return []
    rows = json.loads(path.read_text())
    return [PlannedCell(name, key, tuple((a, b) for a, b in stages)) for name, key, stages in rows]


def _path(folder: RunsFolder, grid: str) -> Path:
    return folder.root / "plans" / f"{grid}.json"
