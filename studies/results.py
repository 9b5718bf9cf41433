"""Results of a study: best trials (the Pareto front of several objectives), all trials, hyperparameter importances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.study import Study as OptunaStudy
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ablations.judges import tuning
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.stats.statistics import Interval, t_interval
from studies.recovery import OWNER, SEEN, lost_trials
from studies.samplers import EVEN, SAMPLER
from studies.search import OUTCOMES, Search
from studies.trial import KL, OBJECTIVES

if TYPE_CHECKING:
    from optuna.importance import FanovaImportanceEvaluator

BEST = 10
"""Number of trials in the table of best trials."""
NEAR = 0.02
"""A value is at an end of its range if no more than this share of the range lies beyond it."""
LEAST = 8
"""Smallest number of complete trials for importances."""


def complete(study: OptunaStudy) -> list[FrozenTrial]:
    """Return the complete trials with finite values."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if all(math.isfinite(value) for value in trial.values)]


def pareto_front(study: OptunaStudy) -> list[FrozenTrial]:
    """Return the complete trials on the Pareto front."""
    numbers = {trial.number for trial in complete(study)}
    return [trial for trial in study.best_trials if trial.number in numbers]


def evenly_drawn(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials of a random or QMC design, which covers the space independently of earlier values."""
    return [trial for trial in trials if trial.user_attrs.get(SAMPLER) in EVEN]


def final_values(trial: FrozenTrial) -> list[float]:
    """Return the values of a complete trial, and an empty list for others.

    Optuna stores the last intermediate value of a pruned trial as its value; it is not comparable with a final one.
    """
    return list(trial.values) if trial.state == TrialState.COMPLETE else []


def ranked(study: OptunaStudy) -> list[FrozenTrial]:
    """Return the complete trials, sorted by the first objective, best first."""
    sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1
    return sorted(complete(study), key=lambda trial: (sign * trial.values[0], trial.number))


def sheets(study: OptunaStudy, search: Search) -> list[Sheet]:
    """Return every table for which there are enough trials."""
    return [sheet for sheet in (best(study, search), importance(study, search)) if sheet is not None]


def best(study: OptunaStudy, search: Search) -> Sheet | None:
    """Return the table of the best trials and of the one with the default values; None without complete trials.

    With several objectives, the best trials are those on the Pareto front.
    """
    trials = ranked(study)
    if not trials:
        return None
    top = trials[:BEST] if len(search.directions) == 1 else pareto_front(study)
    paper = next((trial.number for trial in trials if trial.params == dict(search.definition.paper)), None)
    numbers = {paper, *(trial.number for trial in top)}
    pareto = " The best are the Pareto front: no other trial is at least as good in every objective and better in one."
    notes = (
        f"{_counts(study)}. Mean over seeds {', '.join(map(str, search.spec.seeds))} (development) ± half the 95 % t-interval"
        + (f", by the {tuning().label}" if search.spec.policy else "")
        + ". The value of the best of many noisy trials is biased upwards: rely on the check on fresh seeds."
        + ("" if paper is None else f" Trial {paper} has the default values.")
        + (pareto if len(search.directions) > 1 else _at_ends(trials[0], search)),
    )
    objectives = [Column(name, OBJECTIVES[name].label, "percent") for name in search.spec.objectives]
    knobs = [Column(name, name, "digits") for name in search.definition.space]
    further = [Column(KL, "KL, nats/token", "mark")] if search.spec.policy else []

    def over_seeds(trial: FrozenTrial, columns: Sequence[Column]) -> list[Interval]:
        return [t_interval([seed[c.name] for seed in trial.user_attrs[OUTCOMES].values()]) for c in columns]

    rows: list[tuple[Value, ...]] = [
        (str(t.number), *over_seeds(t, objectives), *(t.params[k.name] for k in knobs), *over_seeds(t, further))
        for t in trials
        if t.number in numbers
    ]
    columns = (Column("trial", "trial"), *objectives, *knobs, *further)
    return Sheet("best", f"Best trials of {search.name}", columns, tuple(rows), notes)


def _at_ends(trial: FrozenTrial, search: Search) -> str:
    """Return which values of a trial lie at an end of their range, beyond which better ones may be; empty if none does."""
    near = []
    for name, distribution in search.definition.space.items():
        if isinstance(distribution, FloatDistribution) and distribution.low < distribution.high:
            scale = math.log if distribution.log else float
            low, high, value = (scale(x) for x in (distribution.low, distribution.high, trial.params[name]))
            if not NEAR < (value - low) / (high - low) < 1 - NEAR:
                near.append(name)
    return f" In trial {trial.number}, at an end of their range: {', '.join(near)}." if near else ""


def write_trials(study: OptunaStudy, path: Path) -> None:
    """Write all trials with state, hyperparameters and user attributes, such as the reason of a failure, as CSV.

    Left out is which process ran a trial. Only complete trials have values: for a pruned one, Optuna stores the last intermediate
    value, which is not comparable.
    """
    frame = study.trials_dataframe()
    values = [name for name in frame.columns if name == "value" or name.startswith("values_")]
    frame.loc[frame["state"] != "COMPLETE", values] = math.nan
    frame.drop(columns=[f"user_attrs_{name}" for name in (OWNER, SEEN)], errors="ignore").to_csv(path, index=False)


def _counts(study: OptunaStudy) -> str:
    trials = study.get_trials(deepcopy=False)
    names = {trial.number: trial.state.name.lower() for trial in trials}
    states = [*(names | dict.fromkeys(lost_trials(trials), "lost and run again")).values()]
    return ", ".join(f"{states.count(name)} {name}" for name in sorted(set(states)))


def evaluator() -> FanovaImportanceEvaluator:
    """Return what computes importances. It is imported here because it imports scikit-learn, which takes more than a second."""
    from optuna.importance import FanovaImportanceEvaluator

    return FanovaImportanceEvaluator(seed=0)


def importance_trials(study: OptunaStudy) -> list[FrozenTrial]:
    """Return the trials from which importances are computed: those that cover the space evenly if there are at least `LEAST`,
    otherwise all complete ones. The list is empty if there are too few, or if all have the same value."""
    finished = complete(study)
    evenly = evenly_drawn(finished)
    trials = evenly if len(evenly) >= LEAST else finished
    return trials if len(trials) >= LEAST and len({trial.values[0] for trial in trials}) > 1 else []


def importance(study: OptunaStudy, search: Search) -> Sheet | None:
    """Return the table of importances for the first objective, from `importance_trials`; None if there are too few trials."""
    trials = importance_trials(study)
    if not trials:
        return None
    from optuna.importance import get_param_importances

    subset = with_trials(search, trials)
    shares = get_param_importances(subset, evaluator=evaluator(), target=lambda trial: trial.values[0])
    samplers = sorted({str(trial.user_attrs.get(SAMPLER, "")) for trial in trials})
    notes = (
        f"From {len(trials)} complete trials, first objective. fANOVA: share of the variance over the space, including the noise "
        "between seeds: do not interpret small shares.",
        f"The trials were drawn by {' and '.join(samplers)}, so they cover the space evenly."
        if {*samplers} <= {*EVEN}
        else "The sampler was adaptive or points were enqueued, so the trials do not cover the space evenly: interpret these "
        f"importances with care, or run at least {LEAST} trials with --sampler qmc.",
    )
    columns = (Column("knob", "hyperparameter"), Column("fanova", "fANOVA, %", "share"))
    return Sheet(
        "importance", f"Importance of the hyperparameters in {search.name}", columns, (*shares.items(),), notes
    )


def with_trials(search: Search, trials: Sequence[FrozenTrial]) -> OptunaStudy:
    """Return an in-memory study with these trials only."""
    directions: Sequence[Any] = search.directions
    study = optuna.create_study(directions=directions)
    study.add_trials(trials)
    return study
