"""A search and a study filled with trials, without running any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
from optuna.trial import create_trial

from rrpo.profiles import SMOKE
from studies.samplers import SAMPLER
from studies.search import OUTCOMES, Search
from studies.trial import TrialSpec


def search(tmp_path: Path, *objectives: str, sampler: str = "qmc") -> Search:
    spec = TrialSpec(profile=SMOKE, store=tmp_path, seeds=(1000, 1001), objectives=objectives)
    return Search(study="regularizers", name="s", spec=spec, trials=30, sampler=sampler)


def filled(searched: Search, trials: int = 30) -> optuna.Study:
    """Trials whose first objective rises with epsilon alone, the second with alpha."""
    study = optuna.create_study(directions=searched.directions)
    rng = np.random.default_rng(0)
    space = dict(searched.definition.space)
    for _ in range(trials):
        params = {name: float(rng.uniform(d.low, d.high)) for name, d in space.items()}
        gain = params["epsilon"] + 0.001 * rng.standard_normal()
        trial_outcomes = {"clean_success": gain, "hacked_share": params["alpha"] / 2, "uptake": 0.0, "kl_token": 0.9}
        outcomes = {1000: trial_outcomes, 1001: {name: value + 0.01 for name, value in trial_outcomes.items()}}
        values = [float(np.mean([o[name] for o in outcomes.values()])) for name in searched.spec.objectives]
        attrs = {OUTCOMES: outcomes, SAMPLER: searched.sampler}
        study.add_trial(create_trial(params=params, distributions=space, values=values, user_attrs=attrs))
    return study
