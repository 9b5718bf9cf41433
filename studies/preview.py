"""Announce what a command will run and how long it takes, and find the stages that all trials share."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.study import Study as OptunaStudy

from ablations.execution.estimate import Estimator, duration, wall
from ablations.judges import tuning
from ablations.stats.statistics import listed
from rrpo.errors import InputError
from rrpo.pipeline.stages import Stage, missing_below, walk
from studies.catalogue import Knobs
from studies.pruning import caveat
from studies.samplers import SAMPLERS
from studies.search import Search, counted
from studies.storage import existing_study


def shared(search: Search) -> list[Stage]:
    """Return the missing stages that every trial needs, inputs first.

    These are the stages common to two points that differ in every hyperparameter.
    """
    paper, elsewhere = _stages(search, search.definition.paper), _stages(search, search.definition.elsewhere)
    common = {stage.key for stage in walk(*paper)} & {stage.key for stage in walk(*elsewhere)}
    return [stage for stage in missing_below([*paper, *elsewhere], search.spec.store) if stage.key in common]


def own(search: Search) -> list[Stage]:
    """Return the stages that are specific to the trial with the default values, for an estimate of a trial's time."""
    elsewhere = {stage.key for stage in walk(*_stages(search, search.definition.elsewhere))}
    return [stage for stage in walk(*_stages(search, search.definition.paper)) if stage.key not in elsewhere]


def _stages(search: Search, point: Knobs) -> list[Stage]:
    """Return the stages that a trial measures."""
    arm = search.definition.arm(point)
    return [stage for seed in search.spec.seeds for stage in search.spec.stages(arm, seed)]


def preview(search: Search, study: OptunaStudy, stages: Sequence[Stage]) -> list[str]:
    """Return lines that say what will run and for how long, from the times of stored stages of the same kind and size."""
    spec, workers = search.spec, search.workers
    left = max(0, search.trials - len(counted(study)))
    estimator = Estimator(spec.store, spec.device)
    seconds, unknown = estimator.total(own(search))
    if not left:
        time = "no trial left to run"
    elif unknown:
        time = "unknown: nothing of this kind was built here yet; an estimate follows after the first trial"
    else:
        first = f"{len(stages)} stages that all trials share ({wall(stages, estimator, workers)}), then "
        time = first if stages else ""
        time += f"about {duration(-(-left // workers) * seconds)} for {left} trials of {duration(seconds)} each"
        time += ", less if trials are pruned" if search.pruner != "none" else ""
    if search.verify and not unknown:
        check = -(-2 * search.verify // workers) * seconds / len(spec.seeds)
        time += (
            f"; then about {duration(check)} for the comparison on {search.verify} fresh seeds, less where it is built"
        )
    notes = [caveat(search.pruner, spec), _baseline_note(search)]
    if search.sampler == "gp" and search.pruner != "none":
        notes.append("sampler gp learns nothing from pruned trials")
    return [
        f"study {search.name}: {left} of {search.trials} trials to run, each on seeds {listed(spec.seeds)} (development), "
        f"by {', '.join(spec.objectives)}" + (f" ({tuning().label})" if spec.policy else ""),
        f"sampler {search.sampler}: {SAMPLERS[search.sampler]}; pruner {search.pruner}",
        *(f"note: {note}" for note in notes if note),
        f"time on {workers} worker(s), {spec.device}: {time}",
    ]


def _baseline_note(search: Search) -> str:
    """Return a note if the best trial is to be compared with a study that does not exist; an empty string otherwise."""
    if not (search.verify and search.against):
        return ""
    try:
        existing_study(search.storage, search.spec.store, search.against)
    except InputError:
        return f"the comparison on fresh seeds needs the study {search.against}, which does not exist yet"
    return ""
