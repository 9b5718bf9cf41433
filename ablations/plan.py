"""What a command asks for, checked, and what is missing for it. Writes nothing and imports no torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ablations import environment, launchers, packing
from ablations.errors import InputError, choose, positive
from ablations.estimate import Estimator, wall
from ablations.exported import read_arms
from ablations.failures import Lost
from ablations.grids import FIRST_SEED, GRIDS, product, scale_batches
from ablations.jobs import missing_stages
from ablations.launchers import Launcher
from ablations.prospects import prospects
from ablations.records import Record
from ablations.runs_folder import RunsFolder, check
from ablations.store import Store
from rrpo.cell import Cell
from rrpo.claims import Claims
from rrpo.corpus.config import ManifestConfig
from rrpo.profiles import Profile
from rrpo.stages import Stage, walk


@dataclass(frozen=True, kw_only=True)
class Request:
    """One command: these cells, with this, there."""

    grid: str
    """Name of grid and experiment."""
    cells: tuple[Cell, ...]
    """Seed by seed over all arms."""
    device: str
    """``cpu`` or ``cuda``."""
    workers: int
    """Processes."""
    folder: RunsFolder
    """Where everything lies."""
    retry_failed: bool = False
    """Whether cells that diverged or met a bug are run again."""
    fail_fast: bool = False
    """Whether the first failure ends the run."""
    launcher: Launcher = field(default_factory=Launcher)
    """Where tasks run."""
    shard: tuple[int, int] = (1, 1)
    """(i, n): only every n-th cell, from the i-th on, is run by this command."""

    @property
    def own(self) -> tuple[Cell, ...]:
        """The shard's cells."""
        place, count = self.shard
        return self.cells[place - 1 :: count]

    @property
    def arms(self) -> list[str]:
        """Labels in the grid's order."""
        return list(dict.fromkeys(cell.label for cell in self.cells))

    @property
    def seeds(self) -> list[int]:
        """Seeds in order."""
        return sorted({cell.seed for cell in self.cells})


@dataclass(frozen=True)
class Plan:
    """What of a request is done, and what is to build."""

    request: Request
    """What was asked for."""
    done: dict[str, Record]
    """Cell hash -> record of the grid's cells that are complete, those not asked for included."""
    lost: dict[str, Lost]
    """Cell hash -> why the cell's last run failed, of those that are not complete."""
    stages: list[Stage]
    """Distinct stages to build, inputs first."""
    spread: float | None = None
    """Over seeds, of RRPO - DiffRO in this grid so far."""

    @property
    def kept_back(self) -> list[Cell]:
        """Cells that diverged or met a bug before, and are run again only on request."""
        if self.request.retry_failed:
            return []
        return [c for c in self.request.own if c.hash in self.lost and not self.lost[c.hash].again]

    @property
    def todo(self) -> list[Cell]:
        """Cells to run, in order."""
        not_now = {cell.hash for cell in self.kept_back} | self.done.keys()
        return [cell for cell in self.request.own if cell.hash not in not_now]

    @property
    def records(self) -> list[Record]:
        """Records of the cells asked for that are complete."""
        return [self.done[cell.hash] for cell in self.request.cells if cell.hash in self.done]

    def states(self) -> dict[str, str]:
        """Cell hash -> state and reason: done, missing, failed (why), stale (what changed), at work elsewhere (where)."""
        request = self.request
        older = {(r.label, r.seed, r.profile): r for r in self.done.values()}
        owners = _owners(request.folder, request.cells)
        found: dict[str, str] = {}
        for cell in request.cells:
            lost, before = self.lost.get(cell.hash), older.get((cell.label, cell.seed, cell.profile.name))
            if cell.hash in self.done:
                found[cell.hash] = "done"
            elif owner := owners.get(cell.hash):
                found[cell.hash] = f"at work: {owner}"
            elif lost:
                again = "run again" if lost.again or request.retry_failed else "not run again without --retry failed"
                found[cell.hash] = f"failed, {lost} ({again})"
            elif before:
                found[cell.hash] = f"stale: {_change(before, cell)}"
            else:
                found[cell.hash] = "missing"
        return found

    def rows(self) -> list[str]:
        """Every cell with its state, for people."""
        states = self.states()
        return [f"  {cell.name:<24} {cell.hash[:8]}  {states[cell.hash]}" for cell in self.request.cells]

    def lines(self, estimator: Estimator, *, cells: bool = True) -> list[str]:
        """The plan for people: every cell (or none), the stages to build, the time."""
        request, todo = self.request, self.todo
        kinds = Counter(stage.name for stage in self.stages)
        stages = ", ".join(f"{count} x {name}" for name, count in kinds.items()) or "none"
        back = f", {len(self.kept_back)} kept back" if self.kept_back else ""
        back += "" if request.shard == (1, 1) else f" in shard {request.shard[0]}/{request.shard[1]}"
        done = sum(cell.hash in self.done for cell in request.cells)
        return [
            f"grid {request.grid}: {len(request.arms)} arms x {len(request.seeds)} seeds = {len(request.cells)} cells, "
            f"{done} done, {len(todo)} to run{back}",
            *(self.rows() if cells else ()),
            f"stages to build: {stages}",
            *prospects(request.arms, len(request.seeds), self.spread),
            *([f"WARNING: {warning}"] if (warning := environment.code_warning(self.records)) else []),
            f"time on {request.workers} worker(s), {request.device}: {wall(self.stages, estimator, request.workers)}"
            f"; disk: {estimator.space(self.stages)}",
        ]


def _change(before: Record, cell: Cell) -> str:
    """What tells a complete record of the same name from the cell that is asked for."""
    now = cell.params()
    names = sorted(key for key in before.params.keys() | now.keys() if before.params.get(key) != now.get(key))
    if not names:
        return "the code of a stage changed (its version in rrpo/versions.py)"
    shown = ", ".join(f"{key} {before.params.get(key, 'absent')} -> {now.get(key, 'absent')}" for key in names[:3])
    return f"the config changed: {shown}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _owners(folder: RunsFolder, cells: Sequence[Cell]) -> dict[str, str]:
    """Cell hash -> the live process that builds one of its own stages."""
    owners = Claims(folder.claims).holders()
    if not owners:
        return {}
    own = {cell.hash: [stage.path(folder.root).name for stage in cell.stages.values()] for cell in cells}
    return {key: str(owners[name]) for key, names in own.items() for name in names if name in owners}


def request(
    *,
    grid: str,
    profile: str | None = None,
    seeds: int | None = None,
    first_seed: int = FIRST_SEED,
    arms: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    batch_scale: int = 1,
    manifests: Sequence[str] = (),
    retry: str | None = None,
    fail_fast: bool = False,
    launcher: str = "local",
    address: str | None = None,
    cpus_per_task: int = 1,
    gpus_per_task: float | None = None,
    slurm: Sequence[str] = (),
    shard: str = "1/1",
    runs_dir: Path = Path("runs"),
) -> Request:
    """Check a command's options and make its cells.

    Raises InputError for the first option that makes no sense.
    """
    from rrpo.profiles import PROFILES

    chosen = GRIDS[choose("grid", grid, GRIDS)]
    size = PROFILES[choose("profile", chosen.profile if profile is None else profile, PROFILES)]
    size = scale_batches(size, positive("--batch-scale", batch_scale))
    size = replace(size, manifests=dict(_manifest(entry, size) for entry in manifests))
    count = positive("--seeds", chosen.seeds if seeds is None else seeds)
    if first_seed < 0:
        raise InputError("--first-seed must not be negative", got=first_seed, fix="give --first-seed 0 or more")
    cells = chosen.cells(size, range(first_seed, first_seed + count))
    if arms is not None:
        cells += product(read_arms(runs_dir), size, range(first_seed, first_seed + count))
        known = list(dict.fromkeys(cell.label for cell in cells))
        wanted = [choose(f"arm in grid {grid}", name.strip(), known) for name in arms.split(",")]
        cells = sorted((cell for cell in cells if cell.label in wanted), key=lambda cell: cell.seed)
    machine = environment.resolve_device(device, elsewhere=launcher != "local")
    folder = check(runs_dir)
    packed = _packed(cells, folder, gpus_per_task, workers, launcher) if machine == "cuda" else packing.UNMEASURED
    where = launchers.checked(launcher, address, cpus_per_task, gpus_per_task, slurm, machine, packed)
    count = default_workers(machine, packed) if workers is None else positive("--workers", workers)
    if retry is not None:
        choose("set of cells to --retry", retry, ("failed",))
    return Request(
        grid=grid,
        cells=tuple(cells),
        device=machine,
        workers=count,
        folder=folder,
        retry_failed=retry is not None,
        fail_fast=fail_fast,
        launcher=where,
        shard=_shard(shard),
    )


def _shard(text: str) -> tuple[int, int]:
    place, slash, count = text.partition("/")
    if not (slash and place.isdecimal() and count.isdecimal() and 1 <= int(place) <= int(count)):
        raise InputError("--shard takes I/N with I from 1 to N", got=text, fix="for example --shard 1/4 to --shard 4/4")
    return int(place), int(count)


def _manifest(entry: str, profile: Profile) -> tuple[str, ManifestConfig]:
    """``SPLIT=PATH``, checked to the last audio file."""
    from rrpo.corpus.intake import check_manifest
    from rrpo.corpus.manifest import ManifestError

    name, _, path = entry.partition("=")
    choose("split for --manifest SPLIT=PATH", name, [*profile.sizes, "annotated", "rl", "eval"])
    try:
        return name, check_manifest(Path(path), profile.world.emotions, profile.world.audio)
    except ManifestError as error:
        raise InputError(
            str(error), got=entry, fix="mend the manifest or the file it names; nothing was written"
        ) from None


def _packed(
    cells: Sequence[Cell], folder: RunsFolder, gpus_per_task: float | None, workers: int | None, launcher: str
) -> int:
    """Tasks a GPU, where an option does not decide it."""
    if (workers if launcher == "local" else gpus_per_task) is not None:
        return packing.UNMEASURED
    stages = walk(*(stage for cell in cells for stage in cell.stages.values()))
    smallest = min(environment.gpus().values(), default=None)
    return packing.tasks_a_gpu(stages, Estimator(folder.root, "cuda"), smallest)


def default_workers(device: str, packed: int = packing.UNMEASURED) -> int:
    """One worker a CPU that this process may use; on GPUs at most ``packed`` each."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, packed * max(1, len(environment.gpus()))) if device == "cuda" else cpus


def make(asked: Request) -> Plan:
    """Compare a request with what is stored."""
    plan = Plan(asked, {}, {}, [])
    if asked.folder.exists:
        store = Store(asked.folder)
        plan = Plan(asked, *store.states(asked.grid), [], store.pair_spread(asked.grid))
    return replace(plan, stages=missing_stages(plan.todo, asked.folder.root))
