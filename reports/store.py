"""Which records a report is made of: complete cells of one profile and one world, each (arm, seed) once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.errors import InputError
from ablations.grids import GRIDS
from ablations.records import Record
from ablations.runs_folder import RunsFolder, check
from ablations.store import Store


@dataclass(frozen=True)
class Selection:
    """The records of a report, and what its captions must say of the choice."""

    grid: str
    """Name of the grid, or of those pooled, joined by ``+``."""
    records: tuple[Record, ...]
    """In the grid's order: arms as the grid names them, seeds ascending."""
    planned: dict[str, int]
    """Arm -> seeds that any arm of the grid has here, so that what is missing can be told."""
    notes: tuple[str, ...]
    """Profile, world, what was left out, what failed."""
    looks: tuple[int, ...] = ()
    """Planned numbers of seeds, rising, of the first grid named."""
    folder: RunsFolder | None = None
    """Where the records came from."""

    @property
    def arms(self) -> list[str]:
        """Arms in order."""
        return list(self.planned)

    def of(self, arm: str) -> list[Record]:
        """One arm's records."""
        return [record for record in self.records if record.label == arm]


def select(runs_dir: Path, grids: str | Sequence[str], profile: str | None = None, *, mixed: bool = False) -> Selection:
    """Read the records of one grid, or of several of the same world, from the tracking store alone.

    Raises InputError when there is no store, no such grid, nothing complete, more than one profile to choose from, grids of
    unequal worlds, or cells that different versions of the code made (``mixed`` lets those pass, and the notes say so).
    """
    names = [grids] if isinstance(grids, str) else list(dict.fromkeys(grids))
    folder = check(runs_dir)
    fix = f"run it first: python -m ablations.run --grid {names[0]} --runs-dir {runs_dir}"
    if not folder.exists:
        raise InputError("there is no runs folder to report on", got=runs_dir, fix=fix)
    store = Store(folder)
    chosen = [_choose(store, name, profile, fix) for name in names]
    worlds = {records[0].world_hash for records, _ in chosen}
    if len(worlds) > 1:
        raise InputError(
            "grids of different worlds cannot be pooled", got=", ".join(sorted(worlds)), fix="report on each alone"
        )
    notes = [note for _, said in chosen for note in said]
    single: dict[tuple[str, int], Record] = {}
    for records, _ in chosen:
        for record in records:
            _agree(single.setdefault((record.label, record.seed), record), record)
    arms = _order(names, {label for label, _ in single})
    found = tuple(single[key] for key in sorted(single, key=lambda key: (arms.index(key[0]), key[1])))
    notes += _versions(found, mixed)
    newest = found[0]
    looks = tuple(store.looks(names[0], newest.profile, newest.world_hash))
    seeds = len({record.seed for record in found})
    return Selection("+".join(names), found, dict.fromkeys(arms, seeds), tuple(notes), looks, folder)


def _choose(store: Store, grid: str, profile: str | None, fix: str) -> tuple[list[Record], list[str]]:
    """One grid's records of the newest world, the newest of each arm and seed, and notes."""
    if grid not in store.grids():
        known = ", ".join(store.grids()) or "none"
        if grid not in GRIDS:
            fix = f"use one of: {', '.join(GRIDS)}"
        raise InputError("the store has no grid of that name", got=f"{grid} (there: {known})", fix=fix)
    by_hash, failed = store.states(grid)
    if not by_hash:
        raise InputError("no cell of the grid is complete", got=grid, fix=fix)
    profiles = sorted({record.profile for record in by_hash.values()})
    if profile is None and len(profiles) > 1:
        raise InputError("the grid was run on several profiles", got=", ".join(profiles), fix="choose one by --profile")
    chosen = profile or profiles[0]
    mine = [record for record in by_hash.values() if record.profile == chosen]
    if not mine:
        raise InputError("the grid was not run on that profile", got=chosen, fix=f"use one of: {', '.join(profiles)}")
    newest = max(mine, key=lambda record: record.recorded)
    world = [record for record in mine if record.world_hash == newest.world_hash]
    single = {(r.label, r.seed): r for r in sorted(world, key=lambda r: r.recorded)}
    notes = [f"Grid {grid}, profile {chosen}, world {newest.world_hash}."]
    if len(world) < len(mine):
        notes.append(f"Left out: {len(mine) - len(world)} cells of another world (the newest record's world is shown).")
    if len(single) < len(world):
        notes.append(f"Left out: {len(world) - len(single)} cells that a later version of code or config superseded.")
    if failed:
        diverged = sum(lost.kind == "diverged" for lost in failed.values())
        notes.append(f"Failed cells: {len(failed)}, of which {diverged} diverged.")
    return list(single.values()), notes


def _agree(first: Record, second: Record) -> None:
    if first.cell_hash != second.cell_hash:
        raise InputError(
            "two grids hold different results under one name",
            got=f"{first.label}/{first.seed}: cells {first.cell_hash[:8]} and {second.cell_hash[:8]}",
            fix="report on each grid alone, or run both again with the same code and config",
        )


def _versions(records: Sequence[Record], mixed: bool) -> list[str]:
    """Refuse records that different versions of a stage made, or note them."""
    made: dict[str, set[int]] = {}
    for record in records:
        for path in sorted(record.folder.glob("*/stage.json")):
            stage = json.loads(path.read_text())
            made.setdefault(stage["name"], set()).add(stage["version"])
    unequal = ", ".join(f"{name} {sorted(versions)}" for name, versions in made.items() if len(versions) > 1)
    if not unequal:
        return []
    if not mixed:
        raise InputError(
            "the cells were made by different versions of the code",
            got=unequal,
            fix="run the grid again, which rebuilds the old ones, or allow it by --mixed",
        )
    return [f"MIXED VERSIONS of the code are pooled: {unequal}."]


def _order(grids: Sequence[str], present: set[str]) -> list[str]:
    """The grids' arms in their own order, then any that none names; arms that were never run are left out."""
    from rrpo.profiles import PROFILES

    named = [
        cell.label
        for grid in grids
        if grid in GRIDS
        for cell in GRIDS[grid].cells(PROFILES[GRIDS[grid].profile], [0])
        if cell.label in present
    ]
    known = list(dict.fromkeys(named))
    return known + sorted(present - set(known))
