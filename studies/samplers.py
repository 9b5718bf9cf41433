"""Samplers by name. Each trial draws from a stream of its own, keyed by (seed, trial number) as all noise of this project is.

So a random or QMC design is the same whoever runs it and in whatever order; a model-based search also depends on which trials
have finished, and is the same again with one worker.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, QMCSampler, RandomSampler, TPESampler

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study as OptunaStudy
    from optuna.trial import FrozenTrial, TrialState

SAMPLERS = {
    "tpe": "all knobs together, since they interact; the default",
    "gp": "a Gaussian process: best for few trials (some fifty), slow for many",
    "nsga3": "evolutionary: for several objectives and many trials",
    "random": "a control, and the trials that importances may be read from",
    "qmc": "a Sobol sequence, more even than random: for importances and the response surface",
}
"""Name -> when to take it."""
SAMPLER, GIVEN = "sampler", "given"
"""Attribute of a trial: the name of what drew its point, `GIVEN` for a point that was enqueued."""
EVEN = ("random", "qmc")
"""Samplers whose trials cover the space evenly, whatever came of the earlier ones."""
STARTUP = 8
"""Trials before a model-based sampler uses its model."""
POPULATION = 16
"""NSGA-III's: the first generation is random, and the library's 50 would make a usual study nothing else."""


def make(name: str, seed: int) -> BaseSampler:
    """TPE (all knobs together), GP for few trials, NSGA-III for several objectives; random and QMC are controls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # the pinned version is tested
        match name:
            case "tpe":
                return TPESampler(seed=seed, multivariate=True, n_startup_trials=STARTUP, constant_liar=True)
            case "gp":
                return GPSampler(seed=seed, n_startup_trials=STARTUP)
            case "nsga3":
                return NSGAIIISampler(seed=seed, population_size=POPULATION)
            case "random":
                return RandomSampler(seed=seed)
        return QMCSampler(seed=seed, scramble=True, warn_asynchronous_seeding=False)


class Keyed(BaseSampler):
    """The sampler of a name, made anew for each trial with a seed of its own; all else is that sampler's."""

    def __init__(self, name: str, seed: int) -> None:
        self._name, self._seed = name, seed
        self._own = make(name, seed)

    def before_trial(self, study: OptunaStudy, trial: FrozenTrial) -> None:
        """Take up the trial's stream (QMC's is one sequence, whose place the study itself counts)."""
        if self._name != "qmc":
            self._own = make(self._name, int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0]))
        self._own.before_trial(study, trial)

    def infer_relative_search_space(self, study: OptunaStudy, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._own.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: OptunaStudy, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._own.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: OptunaStudy, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._own.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: OptunaStudy, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._own.after_trial(study, trial, state, values)
