"""Samplers by name, made reproducible: each trial has its own random stream, keyed by (seed, trial number).

A random or QMC design is therefore independent of the number of workers and of their order. A model-based search also depends on
which trials have finished; it is reproducible with one worker.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial

SAMPLERS = {
    "tpe": "multivariate TPE, for hyperparameters that interact",
    "gp": "Gaussian process, best for few trials (about fifty) and slow for many",
    "nsga3": "NSGA-III, for several objectives and many trials",
    "random": "random search, a baseline and suited to importances",
    "qmc": "Sobol sequence, covers the space more evenly than random, suited to importances and the response surface",
}
"""Name -> what it is and when to use it."""
SAMPLER, GIVEN = "sampler", "given"
"""User attribute of a trial with the name of its sampler, and its value for enqueued points."""
EVEN = ("random", "qmc")
"""Samplers that cover the space evenly, independently of earlier values."""
STARTUP = 8
"""Number of trials before a model-based sampler uses its model."""
POPULATION = 16
"""Population size of NSGA-III. The first generation is random; Optuna's default of 50 would make a whole usual study random."""


def make(name: str, seed: int) -> BaseSampler:
    """Return the sampler with a name from `SAMPLERS`."""
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
    """Delegate to the named sampler, which is created for each trial with its own seed.

    No sampler in `SAMPLERS` does anything after a trial without constraints.
    """

    def __init__(self, name: str, seed: int = 0) -> None:
        self._name, self._seed = name, seed
        self._sampler = make(name, seed)

    def before_trial(self, study: OptunaStudy, trial: FrozenTrial) -> None:
        """Reseed for the trial. QMC is not reseeded: it is one sequence, and the study stores the position in it."""
        if self._name != "qmc":
            self._sampler = make(
                self._name, int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0])
            )
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: OptunaStudy, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: OptunaStudy, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: OptunaStudy, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)
