"""Check the options of the command, and open or resume the study. Nothing is written before all options are valid."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ablations.commands import Device, Plugin, Set, WorldSeed
from ablations.errors import InputError, choose, positive
from ablations.execution import environment, launchers
from ablations.execution.packing import UNMEASURED
from ablations.execution.request import sized, worker_count
from ablations.execution.runs_folder import RunsFolder, check
from ablations.exported import check_name
from ablations.tracking.recorder import create
from ablations.tracking.records import EXPERIMENT_STUDY
from rrpo.arms import BASE
from rrpo.identity import canonical
from rrpo.pipeline.stages import walk
from rrpo.profiles import title
from rrpo.settings import assignments, changed, check_used
from studies.catalogue import STUDIES, TUNE, Study, contains, described, study_of, tune_arm
from studies.fresh import MOST, VERIFY, VERIFY_SMOKE
from studies.pruning import PRUNERS
from studies.results import complete, front
from studies.samplers import GIVEN, SAMPLER, SAMPLERS
from studies.search import Search
from studies.storage import existing_study, open_storage, open_study, reach
from studies.trial import FIRST_SEED, FRESH_SEED, OBJECTIVES, Question

if TYPE_CHECKING:
    from optuna.study import Study as OptunaStudy

TOP = 5
"""Number of points that a warm start takes from the other study."""
WARM_START = "warm_start"
"""User attribute of a study: the study of its warm start."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """The checked options of one command: the search, where it runs, and what follows it."""

    search: Search
    """The search."""
    folder: RunsFolder
    """The runs folder."""
    workers: int
    """Number of trials that run at the same time."""
    launcher: launchers.Launcher
    """Where trials run."""
    warm_start: str
    """Study whose best points are tried first; empty for none."""
    verify: int
    """Number of fresh seeds for the comparison of the best trial with its rival; 0 for no comparison."""
    against: str
    """Study whose best trial is the rival; empty for the paper's values."""
    export_arm: str
    """Name under which the best trial is exported as an arm; empty for no export."""


def checked(
    study: Annotated[str, typer.Option(help=f"Which study: {', '.join([*STUDIES, TUNE])}.")],
    trials: Annotated[
        int, typer.Option(help="Total number of trials; a study that already has them is only reported.")
    ] = 50,
    arm: Annotated[str, typer.Option(help="The arm that tune-arm tunes.")] = "",
    name: Annotated[str, typer.Option(help="Name of the study. Default: the study and the profile.")] = "",
    ranges: Annotated[
        list[str] | None,
        typer.Option("--range", metavar="NAME=LOW:HIGH", help="Replace the range of a hyperparameter; repeatable."),
    ] = None,
    objectives: Annotated[
        str, typer.Option(help=f"One or more of {', '.join(OBJECTIVES)}, separated by commas. Default: the study's.")
    ] = "",
    seeds: Annotated[int, typer.Option(help="Development seeds per trial, the same for every trial.")] = 3,
    first_seed: Annotated[
        int, typer.Option(help=f"The first of these seeds, {FIRST_SEED} to {FRESH_SEED - 1}.")
    ] = FIRST_SEED,
    sampler: Annotated[
        str, typer.Option(help="; ".join(f"{key}: {text}" for key, text in SAMPLERS.items()) + ".")
    ] = "tpe",
    pruner: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(PRUNERS)}, by steps of the first seed. With several objectives there is no pruning."
        ),
    ] = "median",
    warm_start: Annotated[
        str,
        typer.Option(
            help="Study in the same storage whose best points are tried first, for example a finished rm study."
        ),
    ] = "",
    storage: Annotated[
        str,
        typer.Option(help="URL of a database (SQLite, PostgreSQL, MySQL). Default: a journal file in the runs folder."),
    ] = "",
    profile: Annotated[str, typer.Option(help="Size of world and models.")] = "embedded",
    world: WorldSeed = 0,
    settings: Set = None,
    plugin: Plugin = None,
    device: Device = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Trials at the same time. Default: one per CPU.", show_default=False)
    ] = None,
    launcher: Annotated[str, typer.Option(help=f"Where trials run: {', '.join(launchers.PACKAGES)}.")] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="Address of a running Ray cluster. Default: start a local one.", show_default=False),
    ] = None,
    cpus_per_task: Annotated[int, typer.Option(help="CPUs per trial, on Ray and Slurm.")] = 1,
    gpus_per_task: Annotated[
        float | None, typer.Option(help="GPUs per trial, on Ray and Slurm.", show_default=False)
    ] = None,
    slurm: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of sbatch; repeatable.")
    ] = None,
    verify: Annotated[
        int | None,
        typer.Option(
            help="Number of fresh seeds on which the best trial is compared with a rival; 0 for no comparison. "
            f"Default: {VERIFY}, with the smoke profile {VERIFY_SMOKE}.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            help="Equally tuned study whose best trial is the rival. Default: the paper's values; for tune-arm, the tune-arm "
            "study of diffro.",
            show_default=False,
        ),
    ] = "",
    export_arm: Annotated[
        str, typer.Option(help="Store the best trial as an arm of this name, for ablations.run --arms.")
    ] = "",
    runs_dir: Annotated[Path, typer.Option(help="The runs folder, shared with grids.")] = Path("runs"),
) -> Command:
    """Return the checked options. Raises InputError for the first invalid one; writes nothing."""
    bounds = tuple(_range(text) for text in ranges or ())
    definition = study_of(study, arm, bounds)
    given, values = sized(profile, world), assignments(settings or ())
    size = changed(given, values)
    where = re.sub(r"[^\w.-]+", "-", title(size.name, world))
    machine = environment.resolve_device(device)
    question = Question(
        profile=size,
        store=runs_dir.expanduser().resolve(),
        seeds=_seeds(seeds, first_seed),
        objectives=_objectives(objectives, definition),
        device=machine,
    )
    pruner = choose("pruner", pruner, PRUNERS)
    papers = definition.arm(definition.paper)
    check_used(given, values, lambda other: replace(question, profile=other).stages(papers, question.seeds[0]))
    search = Search(
        study=study,
        name=_plain(name or f"{definition.name}-{where}"),
        question=question,
        trials=positive("--trials", trials),
        sampler=choose("sampler", sampler, SAMPLERS),
        pruner=pruner if len(question.objectives) == 1 else "none",
        storage=storage or None,
        arm=arm,
        ranges=bounds,
    )
    if export_arm:
        check_name(export_arm)
    if verify is not None and not 0 <= verify <= MOST:
        raise InputError("--verify is a number of fresh seeds", got=verify, fix=f"give 0 (none) to {MOST}")
    usual = VERIFY_SMOKE if profile == "smoke" else VERIFY
    count = worker_count(workers, machine)
    processes = launchers.checked(launcher, address, cpus_per_task, gpus_per_task, slurm or (), machine, UNMEASURED)
    folder = check(runs_dir)
    if storage:
        reach(storage)
    for other in filter(None, (warm_start, against)):
        if not storage:
            existing_study(None, question.store, other)
    return Command(
        search=search,
        folder=folder,
        workers=count,
        launcher=processes,
        warm_start=warm_start,
        verify=usual if verify is None else verify,
        against=against or (f"{tune_arm(BASE).name}-{where}" if study == TUNE and arm != BASE else ""),
        export_arm=export_arm,
    )


def opened(command: Command) -> OptunaStudy:
    """Create or resume the command's study, and enqueue the first points of a new one.

    Raises InputError for a storage that cannot be used, and for a study of that name with another identity.
    """
    search = command.search
    create(command.folder, f"{EXPERIMENT_STUDY}{search.name}")
    storage = open_storage(search.storage, search.folder)
    with search.lock():
        study = open_study(storage, search.name, search.directions, identity(search))
        if not study.get_trials(deepcopy=False):
            study.set_user_attr(WARM_START, command.warm_start)
            for point in first_points(search, command.warm_start):
                study.enqueue_trial(point, user_attrs={SAMPLER: GIVEN}, skip_if_exists=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # experimental in Optuna; the dashboard shows these names
                study.set_metric_names(list(search.question.objectives))
    return study


def ignored(command: Command, study: OptunaStudy) -> str:
    """Return a note if the study was started without this warm start, which is then ignored; otherwise an empty string."""
    if not command.warm_start or study.user_attrs.get(WARM_START) == command.warm_start:
        return ""
    return f"--warm-start {command.warm_start} is ignored: the study has its first points already"


def identity(search: Search) -> dict[str, Any]:
    """Return what must be equal for trials to be comparable. A study cannot be resumed with another identity.

    It includes the keys of all stages of the paper's values on the first seed; each key hashes config and version.
    """
    question = search.question
    profile = question.profile
    stages: dict[str, list[str]] = defaultdict(list)
    for stage in walk(*question.stages(search.definition.arm(search.definition.paper), question.seeds[0])):
        stages[stage.name].append(stage.key)
    return {
        "study": search.study,
        "arm": search.arm,
        "space": {name: described(d) for name, d in search.definition.space.items()},
        "paper": dict(search.definition.paper),
        "objectives": list(question.objectives),
        "seeds": list(question.seeds),
        "optimize": canonical(profile.optimize),
        "profile": title(profile.name, profile.world.seed),
        "stages": {name: " ".join(sorted(keys)) for name, keys in stages.items()},
    }


def first_points(search: Search, warm_start: str) -> list[dict[str, Any]]:
    """Return the paper's values, then the best points of a warm start.

    Hyperparameters that the other study lacks have the paper's values.
    """
    space, paper = search.definition.space, dict(search.definition.paper)
    points: list[dict[str, Any]] = [paper]
    if warm_start:
        other = existing_study(search.storage, search.question.store, warm_start)
        sign = -1 if other.directions[0].name == "MAXIMIZE" else 1
        done = front(other) if len(other.directions) > 1 else complete(other)
        for trial in sorted(done, key=lambda t: sign * t.values[0])[:TOP]:
            own = {k: v for k, v in trial.params.items() if k in paper and contains(space[k], v)}
            points.append(paper | own)
    return points


def _plain(name: str) -> str:
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
    if first < FIRST_SEED or last >= FRESH_SEED:
        raise InputError(
            "a search uses development seeds only",
            got=f"{first} to {last}",
            fix=f"choose seeds from {FIRST_SEED} to {FRESH_SEED - 1}: lower ones are for reports, higher ones for --verify",
        )
    return tuple(range(first, last + 1))


def _objectives(text: str, definition: Study) -> tuple[str, ...]:
    parts = [part.strip() for part in text.split(",")] if text else definition.objectives
    names = tuple(choose("objective", part, OBJECTIVES) for part in parts)
    if len(set(names)) < len(names):
        raise InputError("an objective is named twice", got=text, fix="name each once")
    return names
