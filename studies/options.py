"""Check the options of the command, and open or resume the study. Nothing is written before all options are valid."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from studies.catalogue import TUNE, Study, contains, described, study_of, tune_arm
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
    *,
    study: str,
    arm: str,
    name: str,
    ranges: Sequence[str],
    objectives: str,
    trials: int,
    seeds: int,
    first_seed: int,
    sampler: str,
    pruner: str,
    profile: str,
    world: int,
    settings: Sequence[str] = (),
    storage: str,
    device: str,
    runs_dir: Path,
    workers: int | None,
    launcher: tuple[str, str | None, int, float | None, Sequence[str]],
    warm_start: str,
    verify: int | None,
    against: str,
    export_arm: str,
) -> Command:
    """Return the checked options. Raises InputError for the first invalid one; writes nothing."""
    bounds = tuple(_range(text) for text in ranges)
    definition = study_of(study, arm, bounds)
    given, values = sized(profile, world), assignments(settings)
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
    processes = launchers.checked(*launcher, machine, UNMEASURED)
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
