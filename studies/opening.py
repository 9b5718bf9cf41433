"""Open or resume the study of a command: its identity and its first points."""

from __future__ import annotations

import warnings
from collections import defaultdict
from typing import Any

from optuna.study import Study as OptunaStudy

from ablations.tracking.recorder import create
from ablations.tracking.records import EXPERIMENT_STUDY
from rrpo.identity import canonical
from rrpo.pipeline.stages import walk
from rrpo.profiles import title
from studies.catalogue import contains, described
from studies.recovery import recover
from studies.results import pareto_front, ranked
from studies.samplers import GIVEN, SAMPLER
from studies.search import Search
from studies.storage import existing_study, open_storage, open_study

TOP = 5
"""Number of points that a warm start takes from the other study."""


def opened(search: Search) -> OptunaStudy:
    """Create or resume the study, enqueue the first points that it does not have, and queue the trials of dead processes again.

    Raises InputError for a storage that cannot be used, and for a study of that name with another identity.
    """
    create(search.runs, f"{EXPERIMENT_STUDY}{search.name}")
    points = first_points(search)
    storage = open_storage(search.storage, search.folder)
    with search.lock():
        study = open_study(storage, search.name, search.directions, identity(search))
        for point in points:
            study.enqueue_trial(point, user_attrs={SAMPLER: GIVEN}, skip_if_exists=True)
        recover(study, exclusive=search.exclusive)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental in Optuna; the dashboard shows these names
            study.set_metric_names(list(search.spec.objectives))
    return study


def identity(search: Search) -> dict[str, Any]:
    """Return what must be equal for trials to be comparable. A study cannot be resumed with another identity.

    It includes the keys of all stages of the default values on the first seed; each key hashes config and version.
    """
    spec = search.spec
    profile = spec.profile
    stages: dict[str, list[str]] = defaultdict(list)
    for stage in walk(*spec.stages(search.definition.arm(search.definition.paper), spec.seeds[0])):
        stages[stage.name].append(stage.key)
    return {
        "study": search.study,
        "arm": search.arm,
        "space": {name: described(distribution) for name, distribution in search.definition.space.items()},
        "paper": dict(search.definition.paper),
        "objectives": list(spec.objectives),
        "seeds": list(spec.seeds),
        "optimize": canonical(profile.optimize),
        "profile": title(profile.name, profile.world.seed),
        "stages": {name: " ".join(sorted(keys)) for name, keys in stages.items()},
    }


def first_points(search: Search) -> list[dict[str, Any]]:
    """Return the default values, then the best points of a warm start.

    Hyperparameters that the other study lacks have the default values.
    """
    space, paper = search.definition.space, dict(search.definition.paper)
    points: list[dict[str, Any]] = [paper]
    if search.warm_start:
        source = existing_study(search.storage, search.spec.store, search.warm_start)
        front = pareto_front(source)
        trials = [t for t in ranked(source) if t in front or len(source.directions) == 1]
        for trial in trials[:TOP]:
            params = {k: v for k, v in trial.params.items() if k in paper and contains(space[k], v)}
            points.append(paper | params)
    return points
