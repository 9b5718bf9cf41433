"""Which records a report is made of: complete cells of one grid, one profile and one world, each (arm, seed) once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ablations.errors import InputError
from ablations.grids import GRIDS
from ablations.records import Record
from ablations.runs_folder import check
from ablations.store import Store


@dataclass(frozen=True)
class Selection:
    """The records of a report, and what its captions must say of the choice."""

    grid: str
    """Name of the grid."""
    records: tuple[Record, ...]
    """In the grid's order: arms as the grid names them, seeds ascending."""
    planned: dict[str, int]
    """Arm -> seeds that any arm of the grid has here, so that what is missing can be told."""
    notes: tuple[str, ...]
    """Profile, world, what was left out."""
    looks: tuple[int, ...] = ()
    """Planned numbers of seeds, rising."""


def select(runs_dir: Path, grid: str, profile: str | None = None) -> Selection:
    """Read a grid's records from the tracking store alone.

    Raises InputError when there is no store, no such grid, nothing complete, or more than one world to choose from.
    """
    folder = check(runs_dir)
    fix = f"run it first: python -m ablations.run --grid {grid} --runs-dir {runs_dir}"
    if not folder.exists:
        raise InputError("there is no runs folder to report on", got=runs_dir, fix=fix)
    store = Store(folder)
    if grid not in store.grids():
        known = ", ".join(store.grids()) or "none"
        if grid not in GRIDS:
            fix = f"use one of: {', '.join(GRIDS)}"
        raise InputError("the store has no grid of that name", got=f"{grid} (there: {known})", fix=fix)
    found = store.records(grid)
    if not found:
        raise InputError("no cell of the grid is complete", got=grid, fix=fix)
    chosen = _choose(grid, found, profile)
    record = chosen.records[0]
    return replace(chosen, looks=tuple(store.looks(grid, record.profile, record.world_hash)))


def _choose(grid: str, found: Sequence[Record], profile: str | None) -> Selection:
    profiles = sorted({record.profile for record in found})
    if profile is None and len(profiles) > 1:
        raise InputError("the grid was run on several profiles", got=", ".join(profiles), fix="choose one by --profile")
    chosen = profile or profiles[0]
    mine = [record for record in found if record.profile == chosen]
    if not mine:
        raise InputError("the grid was not run on that profile", got=chosen, fix=f"use one of: {', '.join(profiles)}")
    newest = max(mine, key=lambda record: record.recorded)
    world = [record for record in mine if record.world_hash == newest.world_hash]
    single = {(r.label, r.seed): r for r in sorted(world, key=lambda r: r.recorded)}
    arms = _order(grid, {label for label, _ in single})
    records = tuple(single[key] for key in sorted(single, key=lambda key: (arms.index(key[0]), key[1])))
    notes = [f"Grid {grid}, profile {chosen}, world {newest.world_hash}."]
    if len(world) < len(mine):
        notes.append(f"Left out: {len(mine) - len(world)} cells of another world (the newest record's world is shown).")
    if len(single) < len(world):
        notes.append(f"Left out: {len(world) - len(single)} cells that a later version of code or config superseded.")
    seeds = len({record.seed for record in records})
    return Selection(grid, records, dict.fromkeys(arms, seeds), tuple(notes))


def _order(grid: str, present: set[str]) -> list[str]:
    """The grid's arms in its own order, then any that it does not name; arms that were never run are left out."""
    from rrpo.profiles import PROFILES

    known: list[str] = []
    if grid in GRIDS:
        cells = GRIDS[grid].cells(PROFILES[GRIDS[grid].profile], [0])
        known = [cell.label for cell in cells if cell.label in present]
    return known + sorted(present - set(known))
