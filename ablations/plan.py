"""What a command asks for, checked, and what is missing for it. Writes nothing and imports no torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ablations import environment
from ablations.errors import InputError, choose, positive
from ablations.estimate import Estimator, wall
from ablations.exported import read_arms
from ablations.grids import FIRST_SEED, GRIDS, product, scale_batches
from ablations.jobs import missing_stages
from ablations.records import Record
from ablations.runs_folder import RunsFolder, check
from ablations.store import Store
from rrpo.cell import Cell
from rrpo.config import ManifestConfig, Profile
from rrpo.stages import Stage

GPU_WORKERS = 4
"""Default most workers on one GPU: small models leave it idle between kernels."""


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
    failed: dict[str, str]
    """Cell hash -> reason of the cells whose last run failed; they are run again."""
    stages: list[Stage]
    """Distinct stages to build, inputs first."""

    @property
    def todo(self) -> list[Cell]:
        """Cells to run, in order."""
        return [cell for cell in self.request.cells if cell.hash not in self.done]

    @property
    def records(self) -> list[Record]:
        """Records of the cells asked for that are complete."""
        return [self.done[cell.hash] for cell in self.request.cells if cell.hash in self.done]

    def lines(self, estimator: Estimator) -> list[str]:
        """The plan for people: every cell, the stages to build, the time."""
        request = self.request
        state = {c.hash: "done" for c in request.cells if c.hash in self.done}
        state |= {key: f"failed before ({reason})" for key, reason in self.failed.items()}
        rows = [f"  {cell.name:<24} {cell.hash[:8]}  {state.get(cell.hash, 'missing')}" for cell in request.cells]
        kinds = Counter(stage.name for stage in self.stages)
        stages = ", ".join(f"{count} x {name}" for name, count in kinds.items()) or "none"
        return [
            f"grid {request.grid}: {len(request.arms)} arms x {len(request.seeds)} seeds = {len(request.cells)} cells, "
            f"{len(request.cells) - len(self.todo)} done, {len(self.todo)} to run",
            *rows,
            f"stages to build: {stages}",
            f"time on {request.workers} worker(s), {request.device}: {wall(self.stages, estimator, request.workers)}",
        ]


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
    machine = environment.resolve_device(device)
    count = default_workers(machine) if workers is None else positive("--workers", workers)
    return Request(grid=grid, cells=tuple(cells), device=machine, workers=count, folder=check(runs_dir))


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


def default_workers(device: str) -> int:
    """One worker a CPU that this process may use; few on a GPU."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, GPU_WORKERS) if device == "cuda" else cpus


def make(asked: Request) -> Plan:
    """Compare a request with what is stored."""
    done: dict[str, Record] = {}
    failed: dict[str, str] = {}
    if asked.folder.exists:
        done, failed = Store(asked.folder).states(asked.grid)
    todo: Sequence[Cell] = [cell for cell in asked.cells if cell.hash not in done]
    return Plan(asked, done, failed, missing_stages(todo, asked.folder.root))
