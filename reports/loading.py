"""Select the records of a report: complete cells of one profile and world, each (arm, seed) once, and list missing cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ablations.errors import InputError
from ablations.grids import GRIDS
from ablations.stats.contrasts import Weights
from ablations.stats.family import declared
from ablations.tracking import plugin_files
from ablations.tracking.invocations import DEVELOPMENT, PARTIAL, Attempt, Invocation, on, planned_seeds, reported
from ablations.tracking.reader import Store
from ablations.tracking.records import TAG_DIRTY, Record
from ablations.tracking.runs_folder import RunsFolder, check
from ablations.tracking.source_version import code_versions
from reports.made_with import apart, stage_versions

Key = tuple[str, int]
"""Arm and seed."""
MISSING, DIVERGED = "missing", "diverged"
"""States of a planned cell: never started, or ended with non-finite values. The others are `PARTIAL` (left unfinished) and the
kinds in `ablations.failures`."""
REDRAWS = (
    "A seed redraws data, raters, RM training, SFT, prompts and noise; renderer, codec, base policy and judges are "
    "fixed."
)


@dataclass(frozen=True)
class Selection:
    """The records of a report, and what its captions must state about the selection."""

    grid: str
    """Name of the grid; names of pooled grids are joined by ``+``."""
    records: tuple[Record, ...]
    """Records in the grid's order: arms as listed in the grid, seeds ascending."""
    planned: dict[str, int]
    """Arm -> number of seeds planned for it, in the grid's order."""
    notes: tuple[str, ...]
    """Notes on profile, world and excluded cells."""
    plans: tuple[int, ...] = ()
    """Numbers of seeds planned for the tested arms of the first grid, ascending; the last one applies, the others are earlier
    plans."""
    grid_labels: frozenset[str] = frozenset()
    """All labels of the grids, including those that were never planned."""
    folder: RunsFolder | None = None
    """Runs folder of the records."""
    lost: Mapping[Key, str] = field(default_factory=dict)
    """Planned cell without a record -> reason: `MISSING`, `PARTIAL` or a kind of failure."""
    attempts: Mapping[Key, Attempt] = field(default_factory=dict)
    """Planned cell without a record -> the newest attempt at it, if there was one."""

    @property
    def grids(self) -> list[str]:
        """Names of the grids."""
        return self.grid.split("+")

    @property
    def arms(self) -> list[str]:
        """Arms, in order."""
        return list(self.planned)

    @property
    def planned_n(self) -> int:
        """Number of seeds at which contrasts are tested; 0 if none was planned."""
        return self.plans[-1] if self.plans else 0

    @cached_property
    def tested(self) -> dict[str, dict[str, Weights]]:
        """Setting (empty for plain arms) -> contrasts tested in it; empty for a screen."""
        return {} if self.screen else declared({*self.grid_labels, *self.planned})

    @property
    def screen(self) -> bool:
        """Whether all grids are screens."""
        return all(name in GRIDS and GRIDS[name].screen for name in self.grids)

    def seeds(self, labels: Collection[str]) -> list[int]:
        """Return the seeds for which all of these labels are planned, or all seeds if there are none, ascending."""
        planned: dict[int, set[str]] = {}
        for label, seed in [*((r.label, r.seed) for r in self.records), *self.lost]:
            planned.setdefault(seed, set()).add(label)
        return sorted(seed for seed, present in planned.items() if set(labels) <= present) or sorted(planned)

    @cached_property
    def diverged(self) -> frozenset[Key]:
        """Cells whose optimization ended with non-finite values. They count as finished, without a value."""
        return frozenset(key for key, kind in self.lost.items() if kind == DIVERGED)

    @property
    def counted(self) -> str:
        """Sentence for every caption: how many cells were planned, and their states."""
        kinds = Counter(self.lost.values())
        failed = {kind: count for kind, count in sorted(kinds.items()) if kind not in (MISSING, PARTIAL, DIVERGED)}
        by_kind = f" ({', '.join(f'{count} {kind}' for kind, count in failed.items())})" if failed else ""
        return (
            f"Of {len(self.records) + len(self.lost)} planned cells {len(self.records)} are complete, {kinds[MISSING]} missing, "
            f"{sum(failed.values())} failed{by_kind}, {kinds[PARTIAL]} partial, {kinds[DIVERGED]} diverged."
        )

    def of(self, arm: str) -> list[Record]:
        """Return the records of one arm."""
        return [record for record in self.records if record.label == arm]


def select(
    runs_dir: Path, grids: str | Sequence[str], profile: str | None = None, world: str = "", *, mixed: bool = False
) -> Selection:
    """Read the records of one grid, or of several grids of the same world, from the tracking store only.

    ``world`` is a prefix of the world's hash. Raises InputError if there is no store, no such grid, no complete cell, more than
    one profile to choose from, or cells from several worlds or versions of the code. ``mixed`` accepts the latter two and
    records them in the notes.
    """
    names = [grids] if isinstance(grids, str) else list(dict.fromkeys(grids))
    folder = check(runs_dir)
    fix = f"run the grid first: python -m ablations.run --grid {names[0]} --runs-dir {runs_dir}"
    if not folder.exists:
        raise InputError("there is no runs folder to report on", got=runs_dir, fix=fix)
    store = Store(folder)
    records: list[Record] = []
    by_grid, attempts, notes = [], [], []
    for name in names:
        grid_records, grid_attempts, grid_notes = _read_grid(store, name, profile, world, mixed, fix)
        records += grid_records
        attempts += grid_attempts
        notes += grid_notes
        by_grid.append(store.plans(name))
    records, grid_notes = _without_development(records)
    notes += [*grid_notes, *plugin_files.require(records)]
    if len(profiles := sorted({record.profile for record in records})) > 1:
        fix = "choose one with --profile, or report on each grid separately"
        raise InputError("grids of different profiles cannot be pooled", got=", ".join(profiles), fix=fix)
    by_key: dict[Key, Record] = {}
    for record in records:
        _require_same_cell(by_key.setdefault((record.label, record.seed), record), record)
    worlds = {record.world_hash for record in by_key.values()}
    if len(worlds) > 1 and not mixed:
        choose = "report on each grid separately, or pool them with --mixed"
        raise InputError("grids of different worlds cannot be pooled", got=", ".join(sorted(worlds)), fix=choose)
    profile = records[0].profile
    development = records[0].seed >= DEVELOPMENT
    invocations = [
        on([plan for plan in of_grid if plan.profile == profile and plan.world_hash in worlds], development=development)
        for of_grid in by_grid
    ]
    planned = _requested(by_key, [plan for of_grid in invocations for plan in of_grid])
    absent = sorted(planned - by_key.keys())
    newest = {(a.label, a.seed): a for a in attempts if a.profile == profile and a.world_hash in worlds}
    unfinished = {key: newest[key] for key in absent if key in newest}
    lost = {key: unfinished[key].state if key in unfinished else MISSING for key in absent}
    labels = _labels(names)
    present = {label for label, _ in planned | lost.keys()}
    arms = [label for label in labels if label in present] + sorted(present - set(labels))
    chosen = tuple(by_key[key] for key in sorted(by_key, key=lambda key: (arms.index(key[0]), key[1])))
    counts = {arm: sum(label == arm for label, _ in planned | lost.keys()) for arm in arms}
    notes += [*_versions(chosen, mixed), *filter(None, [apart(chosen)])]
    plans = tuple(planned_seeds(invocations[0], _labels(names[:1])))
    return Selection("+".join(names), chosen, counts, tuple(notes), plans, frozenset(labels), folder, lost, unfinished)


def _read_grid(
    store: Store, grid: str, profile: str | None, world: str, mixed: bool, fix: str
) -> tuple[list[Record], list[Attempt], list[str]]:
    """Return one grid's records (the newest of each arm and seed), its unfinished attempts, and notes."""
    if grid not in store.grids():
        known = ", ".join(store.grids()) or "none"
        if grid not in GRIDS:
            fix = f"use one of: {', '.join(GRIDS)}"
        raise InputError("the store has no grid with that name", got=f"{grid} (stored: {known})", fix=fix)
    by_hash, attempts = store.cells(grid)
    if not by_hash:
        raise InputError("no cell of the grid is complete", got=grid, fix=fix)
    profiles = sorted({record.profile for record in by_hash.values()})
    if profile is None and len(profiles) > 1:
        raise InputError(
            "the grid was run with several profiles", got=", ".join(profiles), fix="choose one with --profile"
        )
    chosen = profile or profiles[0]
    records = [record for record in by_hash.values() if record.profile == chosen]
    if not records:
        raise InputError("the grid was not run with that profile", got=chosen, fix=f"use one of: {', '.join(profiles)}")
    worlds = Counter(record.world_hash for record in records)
    in_world = [record for record in records if record.world_hash.startswith(world)]
    if not in_world:
        raise InputError("the grid was not run in that world", got=world, fix=f"use one of: {', '.join(worlds)}")
    elsewhere = len(records) - len(in_world)
    records, excluded = _without_development(in_world)
    pooled = Counter(record.world_hash for record in records)
    if len(pooled) > 1 and not mixed:
        got = ", ".join(f"{name} ({count} cells)" for name, count in pooled.items())
        raise InputError(
            f"grid {grid} was run in several worlds", got=got, fix="choose one with --world, or pool them with --mixed"
        )
    by_key = {(r.label, r.seed): r for r in sorted(records, key=lambda r: r.recorded)}
    notes = [f"Grid {grid}, profile {chosen}, world {', '.join(pooled)}.", *excluded]
    if len(pooled) > 1:
        notes.append(f"MIXED WORLDS: {len(pooled)} worlds are pooled.")
    if elsewhere:
        notes.append(f"Excluded: {elsewhere} cells of other worlds.")
    if len(by_key) < len(records):
        notes.append(f"Excluded: {len(records) - len(by_key)} cells superseded by a later version of code or config.")
    return list(by_key.values()), attempts, notes


def _without_development(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Return the records that a report pools, and a note on those it excludes: development seeds, unless there are no
    others."""
    seeds = reported(record.seed for record in records)
    pooled = [record for record in records if record.seed in seeds]
    excluded = len(records) - len(pooled)
    return pooled, [f"Excluded: {excluded} cells with development seeds ({DEVELOPMENT} and above)."] if excluded else []


def _require_same_cell(first: Record, second: Record) -> None:
    if first.cell_hash != second.cell_hash:
        raise InputError(
            "two grids have different results for the same arm and seed",
            got=f"{first.label}/{first.seed}: cells {first.cell_hash[:8]} and {second.cell_hash[:8]}",
            fix="report on each grid separately, or run both again with the same code and config",
        )


def _requested(present: Iterable[Key], invocations: Sequence[Invocation]) -> set[Key]:
    """Return all requested cells; if no invocation is recorded, every arm with every seed that any arm has."""
    keys = set(present)
    cells = {(arm, seed) for each in invocations for arm, seeds in each.plan.items() for seed in seeds}
    return keys | (cells or {(arm, seed) for arm, _ in keys for _, seed in keys})


def _versions(records: Sequence[Record], mixed: bool) -> list[str]:
    """Raise InputError for records made by different versions of a stage or the source, unless mixed; return notes on the
    versions."""
    used = {"source": Counter({name: len(cells) for name, cells in code_versions(records).items()})}
    for (name, version), count in stage_versions(records).items():
        used.setdefault(f"stage {name}, version", Counter())[str(version)] += count
    dirty = sum(record.tags.get(TAG_DIRTY) == "true" for record in records)
    notes = [f"Made from a source tree with uncommitted changes: {dirty} cells."] if dirty else []
    unequal = "; ".join(
        f"{name} {', '.join(f'{v} ({n} cells)' for v, n in sorted(versions.items()))}"
        for name, versions in used.items()
        if len(versions) > 1
    )
    if not unequal:
        return notes
    if not mixed:
        raise InputError(
            "the cells were made by different versions of the code",
            got=unequal,
            fix="run the grid again (only what a new version changed is rebuilt), or pool them with --mixed",
        )
    return [*notes, f"MIXED VERSIONS of the code are pooled: {unequal}."]


def _labels(grids: Sequence[str]) -> list[str]:
    """Return the labels of the grids, in their order."""
    from rrpo.profiles import PROFILES

    known = [GRIDS[grid] for grid in grids if grid in GRIDS]
    return list(dict.fromkeys(cell.label for grid in known for cell in grid.cells(PROFILES[grid.profile], [0])))
