"""Select the records of a report: complete cells of one profile and world, each (arm, seed) once, and list missing cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

from ablations.grids import DEVELOPMENT, GRIDS, split_label
from ablations.stats.contrasts import Weights
from ablations.stats.family import declared
from ablations.tracking import plugin_files
from ablations.tracking.cell_file import CELL_FILE, read_cell
from ablations.tracking.invocations import PARTIAL, Attempt, Invocation, of_kind, planned_seeds, reported
from ablations.tracking.reader import Store
from ablations.tracking.records import INSTALLED, TAG_DIRTY, Record
from ablations.tracking.runs_folder import RunsFolder, check
from ablations.tracking.source_version import code_versions, source_of
from reports.made_with import apart, stage_versions
from rrpo.errors import InputError
from rrpo.profiles import PROFILES, Profile

Key = tuple[str, int]
"""Arm and seed."""
MISSING, DIVERGED = "missing", "diverged"
"""States of a planned cell: never started, or ended with non-finite values. The others are `PARTIAL` (left unfinished) and the
kinds in `ablations.failures`."""


@dataclass(frozen=True)
class Elsewhere:
    """The cells of another world."""

    records: tuple[Record, ...]
    """Its records, each arm and seed once."""
    lost: Mapping[Key, str] = field(default_factory=dict)
    """Planned cell without a record -> reason, as in `Selection.lost`."""

    @property
    def unfinished(self) -> set[Key]:
        """Planned cells that neither are complete nor diverged."""
        return {key for key, reason in self.lost.items() if reason != DIVERGED}

    @property
    def counted(self) -> str:
        """How many of its planned cells are complete, as text."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(self.lost.values()).items()))
        total = len(self.records) + len(self.lost)
        return f"{len(self.records)} of {total} planned cells ({kinds})" if kinds else f"{total} cells"


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
    elsewhere: Mapping[str, Elsewhere] = field(default_factory=dict)
    """Name of each other world of the profile -> its cells of these grids, if the same code made them."""
    setting_plans: Mapping[str, int] = field(default_factory=dict)
    """Setting of the first grid -> number of seeds planned for its tested arms; `plans` applies to the others."""

    @property
    def grids(self) -> list[str]:
        """Names of the grids."""
        return self.grid.split("+")

    @cached_property
    def store(self) -> Store:
        """The tracking store of the records."""
        assert self.folder is not None
        return Store(self.folder)

    @property
    def arms(self) -> list[str]:
        """Arms, in order."""
        return list(self.planned)

    @property
    def planned_n(self) -> int:
        """Number of seeds at which contrasts are tested; 0 if none was planned."""
        return self.plans[-1] if self.plans else 0

    def planned_in(self, setting: str) -> int:
        """Return the number of seeds at which the contrasts of a setting (empty: of plain arms) are tested; 0 if none was
        planned."""
        return self.setting_plans.get(setting, self.planned_n)

    @cached_property
    def tested(self) -> dict[str, dict[str, Weights]]:
        """Setting (empty for plain arms) -> contrasts tested in it; empty for a screen."""
        return {} if self.screen else declared(dict.fromkeys([*self.planned, *sorted(self.grid_labels)]))

    @property
    def family(self) -> dict[str, Weights]:
        """Contrasts tested among plain arms; empty for a screen and for a grid of settings."""
        return self.tested.get("", {})

    @property
    def screen(self) -> bool:
        """Whether all grids are screens."""
        return all(name in GRIDS and GRIDS[name].screen for name in self.grids)

    @property
    def seeds_run(self) -> list[int]:
        """Seeds with a complete cell, ascending."""
        return sorted({record.seed for record in self.records})

    def seeds(self, labels: Collection[str]) -> list[int]:
        """Return the seeds for which all of these labels are planned, or all seeds if there are none, ascending."""
        planned: dict[int, set[str]] = {}
        for label, seed in [*((r.label, r.seed) for r in self.records), *self.lost]:
            planned.setdefault(seed, set()).add(label)
        return sorted(seed for seed, present in planned.items() if set(labels) <= present) or sorted(planned)

    @cached_property
    def tested_seeds(self) -> list[int]:
        """The seeds of the tests of plain arms; all seeds if nothing is tested."""
        return self.seeds({arm for weights in self.family.values() for arm in weights})

    @cached_property
    def diverged(self) -> frozenset[Key]:
        """Cells whose optimization ended with non-finite values. They count as finished, without a value."""
        return frozenset(key for key, kind in self.lost.items() if kind == DIVERGED)

    @property
    def unfinished(self) -> set[Key]:
        """Planned cells of all worlds that neither are complete nor diverged."""
        others = (other.unfinished for other in self.elsewhere.values())
        return (self.lost.keys() - self.diverged).union(*others)

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

    def tested_of(self, arm: str) -> list[Record]:
        """Return the records of one arm on `tested_seeds`."""
        return [record for record in self.of(arm) if record.seed in self.tested_seeds]


def select(
    runs_dir: Path, grids: str | Sequence[str], profile: str | None = None, world: str = "", *, mixed: bool = False
) -> Selection:
    """Read the records of one grid, or of several grids of the same world, from the tracking store only.

    ``world`` is a prefix of the world's hash; by default, the installed world is reported, and the worlds built with ``--world``
    are kept apart (`Selection.elsewhere`). Raises InputError if there is no store, no such grid, no complete cell, more than one
    profile to choose from, or cells from several worlds or versions of the code. ``mixed`` accepts the latter two, if no cell is
    in two worlds, and records them in the notes.
    """
    names = [grids] if isinstance(grids, str) else list(dict.fromkeys(grids))
    folder = check(runs_dir)
    fix = f"run the grid first: python -m ablations.run --grid {names[0]} --runs-dir {runs_dir}"
    if not folder.exists:
        raise InputError("there is no runs folder to report on", got=runs_dir, fix=fix)
    store = Store(folder)
    # the cells of one profile and of the chosen worlds, without development seeds, each arm and seed once
    cells = {name: _cells(store, name, fix) for name in names}
    complete = [(name, record) for name, (records, _) in cells.items() for record in records]
    (profile,) = _choose("profile", (record.profile for _, record in complete), profile or "")
    complete = [(name, record) for name, record in complete if record.profile == profile]
    attempts = [a for _, unfinished in cells.values() for a in unfinished if a.profile == profile]
    numbers = _numbers(record for _, record in complete)
    if not (world or mixed):
        world = _installed(numbers)
    in_world = [(name, record) for name, record in complete if record.world_hash.startswith(world)]
    seeds = reported(record.seed for _, record in in_world)
    pooled = [(name, record) for name, record in in_world if record.seed in seeds]
    worlds = _choose("world", (r.world_hash for _, r in pooled or complete), "" if pooled else world, pool=mixed)
    if absent := [name for name in names if name not in {grid for grid, _ in in_world}]:
        fix = "report on each grid separately, or choose another --profile or --world"
        raise InputError(
            f"a grid has no complete cell of profile {profile} and world {worlds[0]}", got=", ".join(absent), fix=fix
        )
    in_these = [attempt for attempt in attempts if attempt.world_hash in worlds]
    by_key = _without_diverged_since(_one_each(pooled), in_these)
    if not by_key:
        raise InputError("every cell of the grid diverged since it was complete", got=", ".join(names), fix=fix)
    edited = plugin_files.require(by_key.values())
    plans = {name: [plan for plan in store.plans(name) if plan.profile == profile] for name in names}
    elsewhere, left_out = _elsewhere(
        [record for _, record in complete], attempts, list(chain(*plans.values())), numbers, list(by_key.values())
    )
    apart_from_these = {record.cell_hash for other in elsewhere.values() for record in other.records}
    others = {record.cell_hash for _, record in complete} - {record.cell_hash for _, record in in_world}
    excluded = {
        "cells of other worlds": len(others - apart_from_these),
        f"cells with development seeds ({DEVELOPMENT} and above)": len(in_world) - len(pooled),
        "cells superseded by a later version of code or config": len(pooled) - len({(n, *_key(r)) for n, r in pooled}),
    }
    notes = [f"Grid {', '.join(names)}, profile {profile}, world {', '.join(worlds)}."]
    notes += [f"MIXED WORLDS: {len(worlds)} worlds are pooled."] if len(worlds) > 1 else []
    notes += [f"Excluded: {count} {what}." for what, count in excluded.items() if count]
    # what was planned, and what became of the planned cells without a result
    development = min(seeds) >= DEVELOPMENT
    invocations = [
        of_kind([plan for plan in plans[name] if plan.world_hash in worlds], development=development) for name in names
    ]
    planned = _requested(by_key, list(chain(*invocations)))
    unfinished, lost = _without_record(planned - by_key.keys(), in_these)
    recorded = next(filter(None, map(_profile, by_key.values())), None)
    labels = _labels(names, recorded)
    counts = Counter(label for label, _ in planned)
    arms = [label for label in labels if label in counts] + sorted(counts.keys() - set(labels))
    chosen = tuple(by_key[key] for key in sorted(by_key, key=lambda key: (arms.index(key[0]), key[1])))
    notes += [*edited, *_versions(chosen, mixed), *filter(None, [apart(chosen)])]
    by_arm = {arm: counts[arm] for arm in arms}
    begun = {split_label(arm)[1] for arm in by_arm}  # each setting is tested by itself
    of_tests = [label for label in _labels(names[:1], recorded) if split_label(label)[1] in begun]
    totals = tuple(planned_seeds(invocations[0], of_tests))
    of_first = {split_label(label)[1] for label in of_tests} - {""}
    by_setting = {name: max(planned_seeds(invocations[0], of_tests, name), default=0) for name in of_first}
    notes += [f"Reported separately: {other.counted} of {name}." for name, other in elsewhere.items()]
    notes += [f"Not reported separately, because other code made it: {name}." for name in left_out]
    return Selection(
        "+".join(names),
        chosen,
        by_arm,
        tuple(notes),
        totals,
        frozenset(labels),
        folder,
        lost,
        unfinished,
        elsewhere,
        by_setting,
    )


def _numbers(records: Iterable[Record]) -> dict[str, str]:
    """Return world hash -> number of the world; empty text if it is unknown."""
    return {record.world_hash: record.world for record in records}


def _installed(numbers: Mapping[str, str]) -> str:
    """Return the hash of the installed world if it is one of several, of which no two have the same number; otherwise empty."""
    distinct = len(set(numbers.values())) == len(numbers) > 1 and "" not in numbers.values()
    return next((world for world, number in numbers.items() if distinct and number == INSTALLED), "")


def _elsewhere(
    complete: Sequence[Record],
    attempts: Sequence[Attempt],
    plans: Sequence[Invocation],
    numbers: Mapping[str, str],
    chosen: Sequence[Record],
) -> tuple[dict[str, Elsewhere], list[str]]:
    """Return name -> cells of the other worlds, with the newest record of each arm and seed; and the names of worlds that other
    code made.

    Only worlds with another number than the chosen one are compared with it, and only cells with seeds of the same kind,
    development or not.
    """
    own, sources = {record.world_hash for record in chosen}, set(map(source_of, chosen))
    development = min(record.seed for record in chosen) >= DEVELOPMENT
    taken = {numbers[world] for world in own} | {""}
    if len(own) > 1 or taken == {""}:
        return {}, []
    found: dict[str, Elsewhere] = {}
    left_out = []
    for world, number in sorted(numbers.items(), key=lambda item: (len(item[1]), item[1], item[0])):
        records = [r for r in complete if r.world_hash == world and (r.seed >= DEVELOPMENT) == development]
        if number in taken or not records:
            continue
        tried = [attempt for attempt in attempts if attempt.world_hash == world]
        newest = _without_diverged_since(_newest(records), tried)
        if not set(map(source_of, newest.values())) <= sources:
            left_out.append(world_name(number, world))
            continue
        planned = _requested(newest, of_kind([p for p in plans if p.world_hash == world], development=development))
        _, lost = _without_record(planned - newest.keys(), tried)
        found[world_name(number, world)] = Elsewhere(tuple(newest[key] for key in sorted(newest)), lost)
    return found, left_out


def world_name(number: str, world: str) -> str:
    """Return the name of a world from its number and hash."""
    return f"world {number} ({world})"


def _cells(store: Store, grid: str, fix: str) -> tuple[list[Record], list[Attempt]]:
    """Return the records of a grid's complete cells, and the attempts at the others."""
    if grid not in (stored := store.grids()):
        fix = fix if grid in GRIDS else f"use one of: {', '.join(GRIDS)}"
        got = f"{grid} (stored: {', '.join(stored) or 'none'})"
        raise InputError("the store has no grid with that name", got=got, fix=fix)
    by_hash, attempts = store.cells(grid)
    if not by_hash:
        states = ", ".join(
            f"{count} {state}" for state, count in Counter(attempt.state for attempt in attempts).items()
        )
        if states:
            fix = f"see why: python -m ablations.run --grid {grid} --plan"
        raise InputError("no cell of the grid is complete", got=f"{grid}: {states}" if states else grid, fix=fix)
    return list(by_hash.values()), attempts


def _choose(what: str, values: Iterable[str], wanted: str, *, pool: bool = False) -> list[str]:
    """Return the ``wanted`` profile or world, by default all. Raise InputError if there is none, or several unless pooled."""
    counts = Counter(values)
    chosen = [value for value in counts if wanted in ("", value)]
    if not chosen:
        raise InputError(f"the grid was not run with that {what}", got=wanted, fix=f"use one of: {', '.join(counts)}")
    if len(chosen) > 1 and not pool:
        fix = f"choose one with --{what}" + (
            ", or pool those that share no cell with --mixed" if what == "world" else ""
        )
        got = ", ".join(f"{value} ({counts[value]} cells)" for value in sorted(chosen))
        raise InputError(f"the cells are of different {what}s", got=got, fix=fix)
    return chosen


def _key(record: Record) -> Key:
    """Return the arm and seed of a record."""
    return record.label, record.seed


def _newest(records: Iterable[Record]) -> dict[Key, Record]:
    """Return the newest record of each arm and seed."""
    return {_key(record): record for record in sorted(records, key=lambda record: record.recorded)}


def _one_each(pooled: Sequence[tuple[str, Record]]) -> dict[Key, Record]:
    """Return the newest record of each arm and seed, from pairs of grid and record.

    Raises InputError if one of them is in two worlds, or if the newest records of two grids differ.
    """
    worlds = Counter((label, seed) for label, seed, _ in {(*_key(record), record.world_hash) for _, record in pooled})
    if twice := [f"{label}/{seed}" for (label, seed), count in sorted(worlds.items()) if count > 1]:
        got = ", ".join(twice[:4]) + (f" and {len(twice) - 4} more" if twice[4:] else "")
        raise InputError("worlds that have the same cells cannot be pooled", got=got, fix="choose one with --world")
    by_key: dict[Key, Record] = {}
    for name in dict.fromkeys(name for name, _ in pooled):
        for key, record in _newest(r for grid, r in pooled if grid == name).items():
            first = by_key.setdefault(key, record)
            if first.cell_hash != record.cell_hash:
                got = f"{record.label}/{record.seed}: cells {first.cell_hash[:8]} and {record.cell_hash[:8]}"
                fix = "report on each grid separately, or run both again with the same code and config"
                raise InputError("two grids have different results for the same arm and seed", got=got, fix=fix)
    return by_key


def _without_diverged_since(records: Mapping[Key, Record], attempts: Iterable[Attempt]) -> dict[Key, Record]:
    """Return the records without those of cells that diverged later, with another config: these have no result any more."""
    diverged = {_key(attempt): attempt.recorded for attempt in attempts if attempt.state == DIVERGED}
    return {key: record for key, record in records.items() if diverged.get(key, record.recorded) <= record.recorded}


def _without_record(keys: Iterable[Key], attempts: Iterable[Attempt]) -> tuple[dict[Key, Attempt], dict[Key, str]]:
    """Return the newest attempt at each planned cell without a record, if there was one, and the reason for each."""
    latest = {_key(attempt): attempt for attempt in attempts}
    tried = {key: latest[key] for key in sorted(keys) if key in latest}
    return tried, {key: tried[key].state if key in tried else MISSING for key in sorted(keys)}


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
    if unequal and not mixed:
        fix = "run the grid again (only what a new version changed is rebuilt), or pool them with --mixed"
        raise InputError("the cells were made by different versions of the code", got=unequal, fix=fix)
    return [*notes, f"MIXED VERSIONS of the code are pooled: {unequal}."] if unequal else notes


def _profile(record: Record) -> Profile | None:
    """Return the profile of a record's cell; None if it is not recorded, or other code recorded it."""
    try:
        return read_cell((record.folder / CELL_FILE).read_text()).profile
    except (OSError, InputError):
        return None


def _labels(grids: Sequence[str], profile: Profile | None) -> list[str]:
    """Return the labels of the grids under a profile, which determines their settings; None: under their default ones."""
    known = [GRIDS[grid] for grid in grids if grid in GRIDS]
    cells = chain.from_iterable(grid.cells(profile or PROFILES[grid.profile], [0]) for grid in known)
    return list(dict.fromkeys(cell.label for cell in cells))
