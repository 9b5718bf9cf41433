"""Check a command's options (grid, arms, seeds, device, ...) and make its cells. Writes nothing and does not import torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ablations.errors import InputError, choose, positive
from ablations.execution import environment, launchers, packing, stacking
from ablations.execution.estimate import Estimator
from ablations.execution.launchers import Launcher
from ablations.execution.options import Options
from ablations.execution.runs_folder import RunsFolder, check
from ablations.execution.test_sets import part_of, read_tests, speed_reporter, training_entries, with_encoder
from ablations.exported import read_arms
from ablations.grids import GRIDS, product, scale_batches
from ablations.grids import arms as named_arms
from rrpo.corpus.config import ManifestConfig
from rrpo.cosyvoice.config import Source
from rrpo.identity import content_hash
from rrpo.judges.protocol import JUDGES
from rrpo.pipeline import world
from rrpo.pipeline.cell import Cell
from rrpo.pipeline.dataflow import SFT
from rrpo.pipeline.executor import PRECISIONS, SINGLE, Executor
from rrpo.pipeline.stages import walk
from rrpo.profiles import PROFILES, Profile, in_world
from rrpo.settings import assignments, changed, check_used, differences

PROMPTS = ("rl", "eval")
"""Splits whose manifests hold prompts, without audio."""


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
    launcher: Launcher = field(default_factory=Launcher)
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
    grid = GRIDS[choose("grid", options.grid, GRIDS)]
    profile = sized(grid.profile if options.profile is None else options.profile, options.world_seed)
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
    folds = _with_data(profile, range(first_seed, first_seed + seed_count), options)
    cells = [cell for fold, fold_seeds in folds for cell in grid.cells(fold, fold_seeds)]
    check_used(
        original,
        values,
        lambda candidate: (stage for cell in grid.cells(candidate, [first_seed]) for stage in cell.all_stages),
    )
    declared = tuple(dict.fromkeys(cell.label for cell in cells))
    if options.arms is not None:
        other_arms = named_arms() | read_arms(options.runs_dir)
        added = {name: arm for name, arm in other_arms.items() if name not in declared}
        cells += [cell for fold, fold_seeds in folds for cell in product(added, fold, fold_seeds)]
        known = list(dict.fromkeys(cell.label for cell in cells))
        labels = [choose(f"arm in grid {options.grid}", name.strip(), known) for name in options.arms.split(",")]
        cells = sorted((cell for cell in cells if cell.label in labels), key=lambda cell: cell.seed)
    if options.encoder is not None and any(cell.policy for cell in cells):
        raise InputError(
            "a reward model of waveforms cannot reward a policy whose codec makes log-mel frames",
            got=f"--encoder {options.encoder} with the grid {options.grid}",
            fix="use --grid rm, which trains and compares reward models alone",
        )
    for fold, _ in folds:
        _check_emotions([cell for cell in cells if cell.profile is fold], fold)
    device = environment.resolve_device(options.device, elsewhere=options.launcher != "local")
    folder = check(options.runs_dir)
    tasks_per_gpu = _tasks_per_gpu(cells, folder, options) if device == "cuda" else packing.UNMEASURED
    launcher = launchers.checked(options, device, tasks_per_gpu)
    workers = worker_count(options.workers, device, tasks_per_gpu)
    members = stacking.size(options.stack, device, cells, folder.root, *_gpu_share(workers))
    if options.retry is not None:
        choose("set of cells to --retry", options.retry, ("failed",))
    changes = differences(original, folds[0][0])
    return Request(
        grid=options.grid,
        cells=tuple(cells),
        device=device,
        workers=workers,
        folder=folder,
        retry_failed=options.retry is not None,
        fail_fast=options.fail_fast,
        launcher=launcher,
        declared=declared,
        settings=tuple(f"{key} = {new} (was {old})" for key, (old, new) in changes.items()),
        executor=Executor(members, _precision(options.precision, device), options.deterministic),
        shard=_shard(options.shard, len(cells)),
    )


def sized(profile: str, world_seed: int) -> Profile:
    """Return a profile by name, in the world with that seed. Raise InputError if either is invalid."""
    return in_world(PROFILES[choose("profile", profile, PROFILES)], _not_negative("--world", world_seed))


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


def _with_data(profile: Profile, seeds: range, options: Options) -> list[tuple[Profile, Sequence[int]]]:
    """Return the profile with the user's data and its seeds, or with ``--folds`` one profile per fold, each with one seed.

    With ``--folds``, seed i uses fold i of the corpus ``--train``, and the test set is that fold's.
    """
    train, tests, folds = options.train, options.tests or (), options.folds
    if folds is None:
        entries = [*(training_entries(train) if train else ()), *(options.manifests or ())]
        with_data = replace(profile, manifests=_manifests(entries, profile))
        return [(replace(with_data, tests=read_tests(tests, with_data)), seeds)]
    if train is None or len(seeds) > positive("--folds", folds):
        raise InputError(
            "--folds divides the corpus of --train, one fold a seed",
            got=f"--folds {folds}, {len(seeds)} seeds, " + (f"--train {train}" if train else "no --train"),
            fix="give --train CORPUS and at most as many seeds as folds",
        )
    profiles = []
    for k, seed in enumerate(seeds, 1):
        corpus = f"{train.removesuffix('.jsonl')}.fold{k}"
        fold_tests = [f"{Path(train).name}={part_of(corpus, 'test')}" if test == train else test for test in tests]
        profiles += _with_data(
            profile, range(seed, seed + 1), replace(options, train=corpus, folds=None, tests=fold_tests)
        )
    pooled = content_hash([Cell(label="", arm=SFT, seed=0, profile=fold).world_hash for fold, _ in profiles])[:16]
    return [(replace(fold, pooled=pooled), fold_seeds) for fold, fold_seeds in profiles]


def _manifests(entries: Sequence[str], profile: Profile) -> dict[str, ManifestConfig]:
    """Read manifests given as ``SPLIT=PATH``.

    Check every line and audio file, then across splits: what they must not share, and what they must have in common.
    """
    if not entries:
        return {}
    from rrpo.corpus.intake import check_apart, check_manifest, check_speakable, classes
    from rrpo.corpus.manifest import Manifest, ManifestError
    from rrpo.corpus.splits import draw_split

    paths: dict[str, Path] = {}
    for name, _, path in (entry.partition("=") for entry in entries):
        judge_splits = [f"judge_{judge}" for judge in JUDGES]
        choose("split for --manifest SPLIT=PATH", name, [*profile.sizes, *judge_splits, "annotated", *PROMPTS])
        if name in paths:
            raise InputError(
                "a split takes one manifest",
                got=f"{name}={paths[name]} and {name}={path}",
                fix="merge the files into one",
            )
        paths[name] = Path(path)
    audio = profile.world.audio
    try:
        manifests = {
            name: Manifest(path=path, emotions=None, split=name, audio=name not in PROMPTS)
            for name, path in paths.items()
        }
        emotions = classes(manifests, profile.world.emotions, world.LEARNT)
        configs = {
            name: check_manifest(path, manifests[name], None if name in PROMPTS else audio, tell=speed_reporter(path))
            for name, path in paths.items()
        }
        check_apart({name: manifests[name] for name in manifests if name not in PROMPTS}, world.models_trained_on)
        prompt_splits = [name for name in ("sft", *PROMPTS) if name in manifests]
        bases = ("base", "sft_heldout") if prompt_splits else ()
        base_utterances = [
            utterance
            for name in bases
            for utterance in manifests.get(name) or draw_split(profile.world, world.splits(profile)[name])
        ]
        for name in prompt_splits:
            check_speakable(name, manifests[name], base_utterances)
    except ManifestError as error:
        raise InputError(
            str(error), got=" ".join(entries), fix="correct the manifest or the file it names; nothing was written"
        ) from None
    return {name: replace(config, emotions=emotions) for name, config in configs.items()}


def _check_emotions(cells: Sequence[Cell], profile: Profile) -> None:
    """Raise InputError if a cell needs rendered speech of an emotion that occurs only in the user's manifests."""
    unrenderable = world.rendered_below(profile, *(stage for cell in cells for stage in cell.stages.values()))
    if unrenderable:
        emotions = ", ".join(sorted(set(profile.emotions) - set(profile.world.emotions)))
        raise InputError(
            f"these splits would have to be rendered, but the renderer has no emotion {emotions}: {', '.join(unrenderable)}",
            got=f"manifests for {', '.join(profile.manifests)} with the emotions {', '.join(profile.emotions)}",
            fix="correct a mistyped label; or give a --manifest for each of these splits; or run a smaller grid: --grid rm "
            "trains no policy, and without its arm oracle (--arms) it needs only rm_pretrain, annotated and rm_valid",
        )


def _tasks_per_gpu(cells: Sequence[Cell], folder: RunsFolder, options: Options) -> int:
    """Return the number of tasks per GPU; the default if an option sets the number of tasks."""
    if (options.workers if options.launcher == "local" else options.gpus_per_task) is not None:
        return packing.UNMEASURED
    stages = walk(*(stage for cell in cells for stage in cell.stages.values()))
    smallest = min(environment.gpus().values(), default=None)
    return packing.tasks_a_gpu(stages, Estimator(folder.root, "cuda"), smallest)


def _precision(name: str, device: str) -> str:
    if choose("--precision", name, PRECISIONS) == "tf32" and device != "cuda":
        raise InputError("TF32 needs a GPU", got=f"--precision tf32 on {device}", fix="omit it, or use --device cuda")
    return name


def _gpu_share(workers: int) -> tuple[int | None, int]:
    """Return the memory of the smallest GPU in MiB (None without a GPU), and the number of workers that share it."""
    gpus = environment.gpus()
    return min(gpus.values(), default=None), -(-workers // max(1, len(gpus)))


def worker_count(requested: int | None, device: str, per_gpu: int = packing.UNMEASURED) -> int:
    """Return the number of ``--workers``; by default one per CPU available to this process, on ``cuda`` at most ``per_gpu`` per
    GPU. Raise InputError if it is not positive."""
    if requested is not None:
        return positive("--workers", requested)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, per_gpu * max(1, len(environment.gpus()))) if device == "cuda" else cpus
