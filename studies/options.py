"""The options of ``studies.run``, and their check. Nothing is written before all options are valid."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from ablations.commands import Device, RunsDir, WorldSeed
from ablations.execution import environment, launchers
from ablations.execution.launchers import Launching
from ablations.execution.packing import UNMEASURED
from ablations.execution.request import simulated, worker_count
from ablations.exported import check_name
from ablations.grids import DEVELOPMENT
from ablations.tracking.runs_folder import check
from rrpo.arms import BASE
from rrpo.commands import EXECUTION, EXPERIMENT, Plugin, Set, option
from rrpo.errors import InputError, choose, positive
from rrpo.profiles import PROFILES, title
from rrpo.settings import assignments, changed, check_used
from studies.catalogue import TUNE, Study, study_of, tune_arm
from studies.fresh import MOST, VERIFY
from studies.pruning import PRUNERS
from studies.samplers import SAMPLERS
from studies.search import Search
from studies.storage import existing_study, reach
from studies.trial import FRESH_SEED, OBJECTIVES, TrialSpec


@dataclass(frozen=True, kw_only=True)
class Options(Launching):
    """The options as given. The docstrings of the fields are the help of the command (`rrpo.commands.options_of`)."""

    study: str = option(EXPERIMENT, ...)
    """Which study: regularizers (the strengths of all components), regularizers-relative (the same with a relative radius of the
    adversarial perturbation), policy (learning rate, beta and temperature of RRPO's optimization), rm (the regularizers by the
    reward model alone: a cheap warm start), tune-arm (the hyperparameters of --arm)."""
    trials: int = option(EXPERIMENT, 50)
    """Total number of trials; a study that already has them is only reported."""
    arm: str = option(EXPERIMENT, "")
    """The arm that tune-arm tunes."""
    name: str = option(EXPERIMENT, "")
    """Name of the study. Default: the study and the profile."""
    ranges: list[str] | None = option(EXPERIMENT, None, flag="--range", metavar="NAME=LOW:HIGH")
    """Replace the range of a hyperparameter; repeatable."""
    objectives: str = option(EXPERIMENT, "", (f"{name} ({each.direction})" for name, each in OBJECTIVES.items()))
    """One or more objectives, separated by commas. Default: the study's."""
    seeds: int = option(EXPERIMENT, 3)
    """Development seeds per trial, the same for every trial."""
    first_seed: int = option(EXPERIMENT, DEVELOPMENT)
    """The first of these seeds; development seeds start at 1000."""
    sampler: str = option(EXPERIMENT, "tpe", (f"{key} ({text})" for key, text in SAMPLERS.items()))
    """How hyperparameters are drawn."""
    pruner: str = option(EXPERIMENT, "median", PRUNERS)
    """How trials are stopped early, by steps of the first seed. With several objectives there is no pruning."""
    warm_start: str = option(EXPERIMENT, "")
    """Study in the same storage whose best points are tried first, for example a finished rm study."""
    profile: str = option(EXPERIMENT, "embedded", PROFILES)
    """Size of world and models."""
    world_seed: WorldSeed = 0
    settings: Set = None
    plugin: Plugin = None
    verify: int | None = option(EXPERIMENT, None)
    """Number of fresh seeds on which the best trial is compared with a baseline; 0 for no comparison. Default: 8, with the smoke
    profile 2."""
    against: str = option(EXPERIMENT, "")
    """Equally tuned study whose best trial is the baseline. Default: the first trial's values; for tune-arm, the tune-arm study
    of diffro."""
    export_arm: str = option(EXPERIMENT, "")
    """Store the best trial as an arm of this name, for ablations.run --arms."""
    device: Device = "auto"
    workers: int | None = option(EXECUTION, None)
    """Trials at the same time. Default: one per CPU, at most 4 per GPU."""
    storage: str = option(EXECUTION, "")
    """URL of a database (SQLite, PostgreSQL, MySQL). Default: a journal file in the runs folder."""
    runs_dir: RunsDir = Path("runs")


def checked(options: Options) -> Search:
    """Return the checked options. Raises InputError for the first invalid one; writes nothing."""
    bounds = tuple(_range(text) for text in options.ranges or ())
    base_profile, values = simulated(options.profile, options.world_seed), assignments(options.settings or ())
    profile = changed(base_profile, values)
    definition = study_of(options.study, options.arm, bounds, profile.optimize)
    suffix = re.sub(r"[^\w.-]+", "-", title(profile.name, options.world_seed))
    device = environment.resolve_device(options.device, elsewhere=options.launcher != "local")
    spec = TrialSpec(
        profile=profile,
        store=check(options.runs_dir).root,
        seeds=_seeds(options.seeds, options.first_seed),
        objectives=_objectives(options.objectives, definition),
        device=device,
    )
    paper_arm = definition.arm(definition.paper)
    check_used(base_profile, values, lambda other: replace(spec, profile=other).stages(paper_arm, spec.seeds[0]))
    pruner = choose("pruner", options.pruner, PRUNERS)
    verify = VERIFY.get(options.profile, VERIFY[""]) if options.verify is None else options.verify
    if not 0 <= verify <= MOST:
        raise InputError("--verify is a number of fresh seeds", got=verify, fix=f"give 0 (none) to {MOST}")
    default_baseline = f"{tune_arm(BASE).name}-{suffix}" if options.study == TUNE and options.arm != BASE else ""
    search = Search(
        study=options.study,
        name=_valid_name(options.name or f"{definition.name}-{suffix}"),
        spec=spec,
        trials=positive("--trials", options.trials),
        sampler=choose("sampler", options.sampler, SAMPLERS),
        pruner=pruner if len(spec.objectives) == 1 else "none",
        storage=options.storage or None,
        arm=options.arm,
        ranges=bounds,
        warm_start=options.warm_start,
        verify=verify,
        against=options.against or default_baseline,
        export_arm=options.export_arm,
        workers=worker_count(options.workers, device),
        launching=launchers.checked(options, device, UNMEASURED),
    )
    if options.export_arm:
        check_name(options.export_arm)
    if options.storage:
        reach(options.storage)
    for other in filter(None, (options.warm_start, options.against)):
        if not options.storage:
            existing_study(None, spec.store, other)
    return search


def _valid_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", name):
        fix = "use letters, digits, hyphens, underscores and dots; do not start with a hyphen or a dot"
        raise InputError("the name of a study is invalid", got=name, fix=fix)
    return name


def _range(text: str) -> tuple[str, float, float]:
    try:
        knob, bounds = text.split("=")
        low, high = bounds.split(":")
        return knob, float(low), float(high)
    except ValueError:
        raise InputError("--range takes NAME=LOW:HIGH", got=text, fix="for example --range epsilon=0:0.2") from None


def _seeds(count: int, first: int) -> tuple[int, ...]:
    last = first + positive("--seeds", count) - 1
    if first < DEVELOPMENT or last >= FRESH_SEED:
        raise InputError(
            "a search uses development seeds only",
            got=f"{first} to {last}",
            fix=f"choose seeds from {DEVELOPMENT} to {FRESH_SEED - 1}: lower ones are for reports, higher ones for --verify",
        )
    return tuple(range(first, last + 1))


def _objectives(text: str, definition: Study) -> tuple[str, ...]:
    names = [part.strip() for part in text.split(",")] if text else definition.objectives
    return tuple(dict.fromkeys(choose("objective", name, OBJECTIVES) for name in names))
