"""Check a command's options (grid, arms, seeds, device, ...) and make its cells. Writes nothing and does not import torch."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ablations.execution import environment, jobs, launchers, packing, stacking
from ablations.execution.estimate import Estimator
from ablations.execution.launchers import Launching
from ablations.execution.options import Options
from ablations.execution.user_data import with_data, with_encoder
from ablations.exported import read_arms
from ablations.grids import GRIDS, Grid, product, scale_batches
from ablations.grids import arms as named_arms
from ablations.tracking.runs_folder import RunsFolder, check
from rrpo.cosyvoice.config import Source
from rrpo.errors import InputError, choose, positive
from rrpo.experiment.cell import Cell, require_buildable
from rrpo.pipeline.executor import PRECISIONS, SINGLE, Executor
from rrpo.pipeline.stages import Stage, walk
from rrpo.profiles import PROFILES, Profile, in_world
from rrpo.settings import assignments, changed, check_used, differences

LABEL = re.compile(r"[\w.+-]+(@[\w.+-]+)?")
"""Label of an arm, or of an arm in a setting. Plans are stored as text, with commas, colons and semicolons between labels."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The checked options of one command."""

    grid: str
    """Name of the grid and of its MLflow experiment."""
    cells: tuple[Cell, ...]
    """All arms of the first seed, then of the next, and so on."""
    device: str
    """``cpu`` or ``cuda``."""
    workers: int
    """Maximum number of tasks at a time."""
    folder: RunsFolder
    """The runs folder."""
    retry_failed: bool = False
    """Whether to run cells again that diverged or hit a bug."""
    fail_fast: bool = False
    """Whether to stop at the first failure."""
    launching: Launching = field(default_factory=Launching)
    """Where tasks run."""
    declared: tuple[str, ...] = ()
    """Labels of all arms of the grid, including those outside the request."""
    settings: tuple[str, ...] = ()
    """Profile fields that ``--set`` changed, as readable text with the old value."""
    executor: Executor = SINGLE
    """How policy optimizations are computed: stack size, precision, determinism."""
    shard: tuple[int, int] = (1, 1)
    """(i, n): this command runs only every n-th cell, starting with the i-th."""

    @property
    def own(self) -> tuple[Cell, ...]:
        """Cells of the shard."""
        index, count = self.shard
        return self.cells[index - 1 :: count]

    @property
    def arms(self) -> list[str]:
        """Labels of the requested arms, in the grid's order."""
        return list(dict.fromkeys(cell.label for cell in self.cells))

    @property
    def seeds(self) -> list[int]:
        """Requested seeds, ascending."""
        return sorted({cell.seed for cell in self.cells})


def request(options: Options) -> Request:
    """Check a command's options and make its cells.

    Raises:
        InputError: An option is invalid.
    """
    cells, declared, settings = _cells(options, GRIDS[choose("grid", options.grid, GRIDS)])
    device = environment.resolve_device(options.device, elsewhere=options.launcher != "local")
    folder = check(options.runs_dir)
    jobs.checkpoint_seconds()
    gpus = environment.gpus()
    memory = min(gpus.values(), default=None)
    given = options.workers if options.launcher == "local" else options.gpus_per_task
    per_gpu = packing.UNMEASURED
    if device == "cuda" and given is None:
        stages = walk(*(stage for cell in cells for stage in cell.stages.values()))
        members = int(options.stack) if options.stack.isdecimal() else 1
        per_gpu = packing.tasks_a_gpu(stages, Estimator(folder.root, device), memory, members)
    launching = launchers.checked(options, device, per_gpu)
    workers = worker_count(options.workers, device, per_gpu)
    sharing = math.ceil(workers / max(1, len(gpus)))
    members = stacking.size(options.stack, device, cells, folder.root, memory, sharing)
    if options.retry is not None:
        choose("set of cells to --retry", options.retry, ("failed",))
    return Request(
        grid=options.grid,
        cells=tuple(cells),
        device=device,
        workers=workers,
        folder=folder,
        retry_failed=options.retry is not None,
        fail_fast=options.fail_fast,
        launching=launching,
        declared=declared,
        settings=settings,
        executor=Executor(members, _precision(options.precision, device, cells), options.deterministic),
        shard=_shard(options.shard, len(cells)),
    )


def _cells(options: Options, grid: Grid) -> tuple[list[Cell], tuple[str, ...], tuple[str, ...]]:
    """Return the requested cells, the labels of all arms of the grid, and the profile's changed fields as readable text."""
    profile = sized(grid.profile if options.profile is None else options.profile, options.world_seed)
    _check_applicable(options, profile)
    profile = scale_batches(profile, positive("--batch-scale", options.batch_scale))
    if profile.cosyvoice is not None:
        files = (None if path is None else Source.of(Path(path)) for path in (options.model, options.train))
        profile = replace(profile, cosyvoice=replace(profile.cosyvoice, model=next(files), corpus=next(files)))
        options = replace(options, train=None)
    values = assignments(options.settings or ())
    original, profile = profile, changed(profile, values)
    if options.encoder is not None:
        profile = with_encoder(profile, options.encoder, tuned=options.tune_encoder)
    default = grid.seeds if options.folds is None else options.folds
    seed_count = positive("--seeds", default if options.seeds is None else options.seeds)
    first_seed = _not_negative("--first-seed", grid.first_seed if options.first_seed is None else options.first_seed)
    folds = with_data(profile, range(first_seed, first_seed + seed_count), options)
    cells = [cell for fold, fold_seeds in folds for cell in grid.cells(fold, fold_seeds) or ()]
    _require_valid(options.grid, cells)
    declared = tuple(dict.fromkeys(cell.label for cell in cells))
    labels, added, policy = declared, {}, any(cell.policy for cell in cells)
    if options.arms is not None:
        other_arms = named_arms() | read_arms(check(options.runs_dir).root)
        added = {name: arm for name, arm in other_arms.items() if name not in declared}
        cells += [cell for fold, fold_seeds in folds for cell in product(added, fold, fold_seeds, policy=policy)]
        known = list(dict.fromkeys(cell.label for cell in cells))
        labels = tuple(choose(f"arm in grid {options.grid}", name.strip(), known) for name in options.arms.split(","))
        cells = sorted((cell for cell in cells if cell.label in labels), key=lambda cell: cell.seed)

    def stages(other: Profile) -> Iterator[Stage]:
        made = [*grid.cells(other, [first_seed]), *product(added, other, [first_seed], policy=policy)]
        return (stage for cell in made if cell.label in labels for stage in cell.all_stages)

    check_used(original, values, stages)
    require_buildable(cells)
    changes = differences(original, folds[0][0])
    return cells, declared, tuple(f"{key} = {new} (was {old})" for key, (old, new) in changes.items())


def _check_applicable(options: Options, profile: Profile) -> None:
    """Raise InputError for an option that the profile, or the other options, leave without effect."""
    if profile.cosyvoice is None:
        given: dict[str, object] = {"--model": options.model}
        fix = "use --grid paper, or omit it"
    else:
        scale = None if options.batch_scale == 1 else options.batch_scale
        given = {"--manifest": options.manifests, "--test": options.tests, "--folds": options.folds}
        given |= {"--batch-scale": scale, "--encoder": options.encoder}
        fix = "omit it; --train names the corpus, and --set changes batches, as in --set cosyvoice.optimize.batch=128"
    if options.encoder is None:
        given["--tune-encoder"] = options.tune_encoder or None
    if useless := [name for name, value in given.items() if value is not None]:
        if useless == ["--tune-encoder"]:
            fix = "give the --encoder to tune, or omit it"
        got = f"{', '.join(useless)} with the profile {profile.name}"
        raise InputError("an option has no effect here", got=got, fix=fix)


def sized(profile: str, world_seed: int) -> Profile:
    """Return a profile by name, in the world with that seed. Raise InputError if either is invalid."""
    return in_world(PROFILES[choose("profile", profile, PROFILES)], _not_negative("--world", world_seed))


def simulated(profile: str, world_seed: int) -> Profile:
    """Return a profile as `sized` does. Raise InputError also for one of CosyVoice2, whose model has no simulated world."""
    found = sized(profile, world_seed)
    if found.cosyvoice is not None:
        fix = f"use one of {', '.join(name for name, other in PROFILES.items() if other.cosyvoice is None)}"
        raise InputError("this command works in the simulated world only", got=f"--profile {profile}", fix=fix)
    return found


def _require_valid(grid: str, cells: Sequence[Cell]) -> None:
    """Raise InputError if a grid has no cell, a label that is not `LABEL`, or several cells of one arm on one seed, of which a
    report would keep one."""
    if wrong := next((cell.label for cell in cells if not LABEL.fullmatch(cell.label)), None):
        fix = "use letters, digits and . _ + - in the name of the arm, and after an @ in that of the setting"
        raise InputError(f"grid {grid} has a label that cannot be stored", got=repr(wrong), fix=fix)
    if not cells:
        fix = "return a list of rrpo.experiment.cell.Cell from its function"
        raise InputError("the grid has no cells", got=grid, fix=fix)
    if twice := [f"{arm}/{seed}" for (arm, seed), n in Counter((c.label, c.seed) for c in cells).items() if n > 1]:
        fix = "give different arms different labels"
        raise InputError(f"grid {grid} has several cells of one arm and seed", got=", ".join(twice[:5]), fix=fix)


def _not_negative(flag: str, value: int) -> int:
    if value < 0:
        raise InputError(f"{flag} must not be negative", got=value, fix=f"give {flag} 0 or more")
    return value


def _shard(text: str, cells: int) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise InputError("--shard takes I/N with I from 1 to N", got=text, fix="for example --shard 1/4 to --shard 4/4")
    if int(index) > cells:
        raise InputError("the shard holds no cell", got=f"{text} of {cells} cells", fix=f"give N at most {cells}")
    return int(index), int(count)


def _precision(name: str, device: str, cells: Iterable[Cell]) -> str:
    if choose("--precision", name, PRECISIONS) == "tf32" and device != "cuda":
        raise InputError("TF32 needs a GPU", got=f"--precision tf32 on {device}", fix="omit it, or use --device cuda")
    fp32 = dict.fromkeys(cell.label for cell in cells if cell.arm.best_of is not None or cell.arm.guidance is not None)
    if fp32 and name != "fp32":
        raise InputError(
            "best-of-n and guided decoding are computed in fp32, and the arms of a seed share one precision",
            got=f"--precision {name} with {', '.join(fp32)}",
            fix="omit --precision, or leave these arms out with --arms",
        )
    return name


def worker_count(requested: int | None, device: str, per_gpu: int = packing.UNMEASURED) -> int:
    """Return the number of ``--workers``; by default one per CPU available to this process, on ``cuda`` at most ``per_gpu`` per
    GPU. Raise InputError if it is not positive."""
    if requested is not None:
        return positive("--workers", requested)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, per_gpu * max(1, len(environment.gpus()))) if device == "cuda" else cpus
