"""Prune trials by intermediate values of the first seed's policy optimization.

Studies with several objectives are never pruned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import optuna
from optuna import pruners
from optuna.pruners import BasePruner
from optuna.trial import Trial

from studies.samplers import STARTUP
from studies.trial import OBJECTIVES, Intermediate, TrialSpec

PRUNERS = ("median", "hyperband", "none")
WARM_UP = 1 / 3
"""Share of the optimization without pruning: a policy improves first, and over-optimization shows only later."""
SMOOTH = 3
"""Number of intermediate values that are averaged: each is from a single batch."""


def make_pruner(name: str, spec: TrialSpec) -> BasePruner:
    """Return the pruner with a name from `PRUNERS`."""
    steps = spec.profile.optimize.steps
    warm_up = max(1, round(WARM_UP * steps))
    match name:
        case "median":
            return pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=warm_up)
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
