"""Prune trials: by intermediate values of the first seed's policy optimization, or by whole seeds.

Studies with several objectives are never pruned.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from studies.samplers import STARTUP
from studies.trial import OBJECTIVES, Look, Question

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.trial import Trial

PRUNERS = ("median", "hyperband", "wilcoxon", "none")
P_WORSE = 0.1
"""Threshold of `WilcoxonPruner`: one-sided p-value of a trial's seeds so far against those of the best trial."""
WARM_UP = 1 / 3
"""Share of the optimization without pruning: a policy improves first, and over-optimization shows only later."""
SMOOTH = 3
"""Number of intermediate values that are averaged: each is from a single batch."""


def make_pruner(name: str, question: Question) -> BasePruner:
    """Return the pruner with a name from `PRUNERS`."""
    from optuna import pruners

    steps = question.profile.optimize.steps
    first = max(1, round(WARM_UP * steps))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Wilcoxon is experimental in Optuna; the pinned version is tested
        match name:
            case "median":
                return pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=first)
            case "hyperband":
                return pruners.HyperbandPruner(min_resource=first, max_resource=steps)
            case "wilcoxon":
                return pruners.WilcoxonPruner(p_threshold=P_WORSE, n_startup_steps=2)
    return pruners.NopPruner()


def look_of(name: str, question: Question) -> Look | None:
    """Return the function that gives a step's intermediate value to the pruner; None if it does not prune by step."""
    if name not in ("median", "hyperband") or len(question.objectives) > 1:
        return None
    return OBJECTIVES[question.objectives[0]].look


def caveat(name: str, question: Question) -> str:
    """Return a note on the limits of a pruner with these objectives and seeds; an empty string if there is none."""
    if len(question.objectives) > 1:
        return "several objectives: no pruning"
    if name in ("median", "hyperband") and look_of(name, question) is None:
        return f"{question.objectives[0]} has no intermediate values: no pruning by step"
    if name == "wilcoxon":
        seeds = len(question.seeds)
        needed = next(n for n in range(1, 20) if 0.5**n < P_WORSE)
        if seeds <= needed:
            return (
                f"Wilcoxon over {seeds} seeds: its smallest p-value after n seeds is 1/2^n, so it cannot prune before seed "
                f"{needed} at p < {P_WORSE:g}, and pruning after the last seed saves nothing; give --seeds {needed + 2} or more"
            )
        return f"Wilcoxon over few seeds: the smallest p-value after n seeds is 1/2^n, so it can prune from seed {needed} on"
    return "" if name == "none" else "pruning uses the first seed only"


def watcher(name: str, question: Question, trial: Trial, first: bool) -> Callable[[int, Mapping[str, float]], None]:
    """Return a callback that reports the first seed's intermediate values, and raises TrialPruned if the pruner decides so."""
    import optuna

    look = look_of(name, question)
    if look is None or not first:
        return lambda step, measures: None
    seen: list[float] = []

    def watch(step: int, measures: Mapping[str, float]) -> None:
        value = look(measures)
        if math.isnan(value):
            return
        seen.append(value)
        recent = seen[-SMOOTH:]
        trial.report(sum(recent) / len(recent), step)
        if trial.should_prune():
            raise optuna.TrialPruned()

    return watch


def after_seed(name: str, question: Question, trial: Trial, seed: int, value: float, last: bool) -> None:
    """Report the value of a whole seed to Wilcoxon.

    Raises TrialPruned if the pruner decides so, but not after the last seed, when pruning saves nothing.
    """
    import optuna

    if name != "wilcoxon" or len(question.objectives) > 1:
        return
    trial.report(value, seed)
    if not last and trial.should_prune():
        raise optuna.TrialPruned()
