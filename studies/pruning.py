"""Prune trials by intermediate values of the first seed's policy optimization.

Studies with several objectives are never pruned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import optuna
from optuna import pruners
from optuna.pruners import BasePruner
from optuna.study import Study as OptunaStudy
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from studies.samplers import STARTUP
from studies.trial import OBJECTIVES, Intermediate, TrialSpec

PRUNERS = ("median", "hyperband", "none")
WARM_UP = 1 / 3
"""Share of the optimization without pruning: a policy improves first, and over-optimization shows only later."""
SMOOTH = 3
"""Number of intermediate values that are averaged: each is from a single batch."""


class MedianNow(BasePruner):
    """Prune a trial whose present value is worse than the median of the complete trials at the same step.

    Optuna's MedianPruner compares a trial's best value so far instead. Clean success falls while a policy over-optimizes, so that
    every trial's best is that of the SFT policy, and none would be pruned.
    """

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up

    def prune(self, study: OptunaStudy, trial: FrozenTrial) -> bool:
        step = trial.last_step
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        values = [each.intermediate_values[step] for each in finished if step in each.intermediate_values]
        if step is None or step < self._warm_up or len(values) < STARTUP:
            return False
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        return bool(sign * trial.intermediate_values[step] < sign * np.median(values))


def make_pruner(name: str, spec: TrialSpec) -> BasePruner:
    """Return the pruner with a name from `PRUNERS`."""
    steps = spec.profile.optimize.steps
    warm_up = max(1, round(WARM_UP * steps))
    match name:
        case "median":
            return MedianNow(warm_up)
        case "hyperband":
            return pruners.HyperbandPruner(min_resource=warm_up, max_resource=steps)
    return pruners.NopPruner()


def intermediate_value_of(name: str, spec: TrialSpec) -> Intermediate | None:
    """Return the function that gives a step's intermediate value to the pruner; None without pruning."""
    if name == "none" or len(spec.objectives) > 1:
        return None
    return OBJECTIVES[spec.objectives[0]].intermediate


def caveat(name: str, spec: TrialSpec) -> str:
    """Return a note on the limits of a pruner with these objectives; an empty string if there is none."""
    if len(spec.objectives) > 1:
        return "several objectives: no pruning"
    if name != "none" and intermediate_value_of(name, spec) is None:
        return f"{spec.objectives[0]} has no intermediate values: no pruning"
    return "" if name == "none" else "pruning uses the first seed only"


def pruning_callback(
    name: str, spec: TrialSpec, trial: Trial, first: bool
) -> Callable[[int, Mapping[str, float]], None]:
    """Return a callback that reports the first seed's intermediate values, and raises TrialPruned if the pruner decides so."""
    intermediate = intermediate_value_of(name, spec)
    if intermediate is None or not first:
        return lambda step, measures: None
    values: list[float] = []

    def on_measures(step: int, measures: Mapping[str, float]) -> None:
        value = intermediate(measures)
        if math.isnan(value):
            return
        values.append(value)
        recent = values[-SMOOTH:]
        trial.report(sum(recent) / len(recent), step)
        if trial.should_prune():
            raise optuna.TrialPruned()

    return on_measures
