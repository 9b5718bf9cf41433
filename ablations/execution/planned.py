"""Store the planned cells of a grid on disk, so that `ablations.status` does not need the grid's code."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ablations.tracking.runs_folder import RunsFolder
from rrpo.experiment.cell import Cell
from rrpo.pipeline.stages import walk


class PlannedCell(NamedTuple):
    """One cell of an invocation."""

    name: str
    """``arm/seed``."""
    hash: str
    """Cell hash, the identity of the result."""
    stages: tuple[str, ...]
    """Folder of every stage that the cell depends on, inputs first; also the stem of its log."""
    profile: str
    """Name of the profile."""
    world: int
    """Seed of the world."""


def write_plan(folder: RunsFolder, grid: str, cells: Sequence[Cell]) -> None:
    """Add cells to the grid's plan atomically; they replace cells with the same name, profile and world."""
    planned = []
    for cell in cells:
        stages = tuple(stage.folder for stage in walk(*cell.stages.values()))
        planned.append(PlannedCell(cell.name, cell.hash, stages, cell.profile.name, cell.profile.world.seed))
    names = {(cell.name, cell.profile, cell.world) for cell in planned}
    path = _path(folder, grid)
    path.parent.mkdir(exist_ok=True)
    with folder.lock():
        rows = [cell for cell in read_plan(folder, grid) if (cell.name, cell.profile, cell.world) not in names]
        rows += planned
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(rows))
        os.replace(partial, path)


def read_plan(folder: RunsFolder, grid: str) -> list[PlannedCell]:
    """Return the cells that any invocation planned, newest last; empty before the first invocation.

    Each name occurs once per profile and world. A damaged file counts as empty: the next invocation writes its own cells again.
    """
    try:
        rows = json.loads(_path(folder, grid).read_text())
        return [PlannedCell(name, key, tuple(stages), profile, world) for name, key, stages, profile, world in rows]
    except (FileNotFoundError, ValueError):
        return []


def _path(folder: RunsFolder, grid: str) -> Path:
    return folder.root / "plans" / f"{grid}.json"
