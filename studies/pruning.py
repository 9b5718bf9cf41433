"""Ending trials early: by the looks of the first seed's policy optimisation, or by whole seeds. Never with several objectives."""

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
"""Wilcoxon's threshold: one-sided p of a trial's seeds so far against the best trial's."""
WARM_UP = 1 / 3
"""Share of the optimisation in which nothing is pruned: a policy gets better before over-optimisation, which trials are to stop,
can show."""
SMOOTH = 3
"""Looks that are averaged: one is of a single batch."""


def make_pruner(name: str, question: Question) -> BasePruner:
    """The pruner by name."""
    from optuna import pruners

    steps = question.profile.optimize.steps
    first = max(1, round(WARM_UP * steps))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Wilcoxon is called experimental; the pinned version is tested
        match name:
            case "median":
                return pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=first)
            case "hyperband":
                return pruners.HyperbandPruner(min_resource=first, max_resource=steps)
            case "wilcoxon":
                return pruners.WilcoxonPruner(p_threshold=P_WORSE, n_startup_steps=2)
    return pruners.NopPruner()


def look_of(name: str, question: Question) -> Look | None:
    """What a pruner by step goes by; None where it has nothing to look at."""
    if name not in ("median", "hyperband") or len(question.objectives) > 1:
        return None
    return OBJECTIVES[question.objectives[0]].look


def caveat(name: str, question: Question) -> str:
    """What to know of a pruner with these objectives and seeds; empty when there is nothing."""
    if len(question.objectives) > 1:
        return "several objectives: no pruning"
    if name in ("median", "hyperband") and look_of(name, question) is None:
        return f"{question.objectives[0]} cannot be seen while a trial runs: no pruning by step"
    if name == "wilcoxon":
        seeds = len(question.seeds)
        needed = next(n for n in range(1, 20) if 0.5**n < P_WORSE)
        if seeds <= needed:
            return (
                f"Wilcoxon over {seeds} seeds: its smallest p after n seeds is 1/2^n, so it prunes nothing before seed {needed} "
                f"at p < {P_WORSE:g}, and there is nothing to save after the last; give --seeds {needed + 2} or more"
            )
        return f"Wilcoxon over few seeds: smallest p after n seeds is 1/2^n, so it can prune from seed {needed} on"
    return "" if name == "none" else "pruning reads the first seed alone"


def watcher(name: str, question: Question, trial: Trial, first: bool) -> Callable[[int, Mapping[str, float]], None]:
    """Reports the looks of the first seed's optimisation and ends it when the pruner says so."""
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
    """Reports a whole seed to Wilcoxon. Raises TrialPruned when it is worth no more; not after the last, when all is paid."""
    import optuna

    if name != "wilcoxon" or len(question.objectives) > 1:
        return
    trial.report(value, seed)
    if not last and trial.should_prune():
        raise optuna.TrialPruned()
