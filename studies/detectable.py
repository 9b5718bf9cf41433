"""Announce what a command will run and how long it takes, and find the stages that all trials share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ablations.execution.estimate import Estimator, duration, wall
from ablations.judges import tuning
from rrpo.pipeline.missing import missing_below
from rrpo.pipeline.stages import Stage, walk
from studies.pruning import caveat
from studies.samplers import SAMPLERS
from studies.search import Search, counted
from studies.trial import span

if TYPE_CHECKING:
    from optuna.study import Study as OptunaStudy


def shared(search: Search) -> list[Stage]:
    """Return the missing stages that every trial needs, inputs first.

    These are the stages common to two points that differ in every hyperparameter.
    """
    paper, elsewhere = _measured_stages(search, elsewhere=False), _measured_stages(search, elsewhere=True)
    common = {stage.key for stage in walk(*paper)} & {stage.key for stage in walk(*elsewhere)}
    return [stage for stage in missing_below([*paper, *elsewhere], search.spec.store) if stage.key in common]


def own(search: Search) -> list[Stage]:
    """Return the stages that are specific to the trial with the paper's values, for an estimate of a trial's time."""
    elsewhere = {stage.key for stage in walk(*_measured_stages(search, elsewhere=True))}
    return [stage for stage in walk(*_measured_stages(search, elsewhere=False)) if stage.key not in elsewhere]


def _measured_stages(search: Search, *, elsewhere: bool) -> list[Stage]:
    """Return the stages that a trial measures, at the paper's values or at `Study.elsewhere`."""
    study = search.definition
    arm = study.arm(study.elsewhere if elsewhere else study.paper)
    return [stage for seed in search.spec.seeds for stage in search.spec.stages(arm, seed)]


def preview(search: Search, study: OptunaStudy, workers: int, stages: Sequence[Stage]) -> list[str]:
    """Return lines that say what will run and for how long, from the times of stored stages of the same kind and size."""
    spec = search.spec
    left = max(0, search.trials - len(counted(study)))
    estimator = Estimator(spec.store, spec.device)
    trial_stages = own(search)
    seconds, unknown = estimator.total(trial_stages)
    if not left:
        time = "nothing left to run"
    elif unknown:
        time = "unknown: nothing of this kind was built here yet; an estimate follows after the first trial"
    else:
        time = (
            f"{len(stages)} stages that all trials share ({wall(stages, estimator, workers)}), then " if stages else ""
        )
        time += f"at most {duration(-(-left // workers) * seconds)} for {left} trials of {duration(seconds)} each"
        time += ", less if trials are pruned" if search.pruner != "none" and len(spec.objectives) == 1 else ""
    note = caveat(search.pruner, spec)
    return [
        f"study {search.name}: {left} of {search.trials} trials to run, each on seeds {span(spec.seeds)} (development), "
        f"by {', '.join(spec.objectives)}" + (f" ({tuning().label})" if spec.policy else ""),
        f"sampler {search.sampler}: {SAMPLERS[search.sampler]}; pruner {search.pruner}",
        *([f"note: {note}"] if note else []),
        f"time on {workers} worker(s), {spec.device}: {time}",
    ]
