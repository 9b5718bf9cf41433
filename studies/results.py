"""Tables of a study: best trials (the Pareto front of several objectives), all trials, hyperparameter importances."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ablations.judges import tuning
from ablations.rendering.sheet import Column, Sheet, Value
from ablations.stats.statistics import Interval, t_interval
from studies.recovery import lost_trials
from studies.samplers import EVEN, SAMPLER
from studies.search import OUTCOMES, REASON, Search
from studies.trial import KL, OBJECTIVES

if TYPE_CHECKING:
    from optuna.study import Study as OptunaStudy
    from optuna.trial import FrozenTrial

BEST = 10
"""Number of trials in the table of best trials."""
LEAST = 8
"""Smallest number of complete trials for importances."""


def complete(study: OptunaStudy) -> list[FrozenTrial]:
    """Return the complete trials with finite values."""
    from optuna.trial import TrialState

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
    from optuna.trial import TrialState

    return list(trial.values) if trial.state == TrialState.COMPLETE else []


def ranked(study: OptunaStudy, search: Search) -> list[FrozenTrial]:
    """Return the complete trials, sorted by the first objective, best first."""
    sign = -1 if search.directions[0] == "maximize" else 1
    return sorted(complete(study), key=lambda trial: (sign * trial.values[0], trial.number))


def sheets(study: OptunaStudy, search: Search) -> list[Sheet]:
    """Return every table for which there are enough trials."""
    tables = (best(study, search), importance(study, search), all_trials(study, search))
    return [sheet for sheet in tables if sheet is not None]


def best(study: OptunaStudy, search: Search) -> Sheet | None:
    """Return the table of the best trials and of trial 0, which has the paper's values; None without complete trials.

    With several objectives, the best trials are those on the Pareto front.
    """
    trials = ranked(study, search)
    if not trials:
        return None
    top = trials[:BEST] if len(search.directions) == 1 else pareto_front(study)
    numbers = {0, *(trial.number for trial in top)}
    pareto = " The best are the Pareto front: no other trial is at least as good in every objective and better in one."
    notes = (
        f"{_counts(study)}. Mean over seeds {', '.join(map(str, search.spec.seeds))} (development) ± half the 95 % t-interval"
        + (f", by the {tuning().label}" if search.spec.policy else "")
        + ". The value of the best of many noisy trials is biased upwards: rely on the check on fresh seeds. Trial 0 has the "
        f"paper's values.{pareto if len(search.directions) > 1 else ''}",
    )
    rows = [_row(t, search) for t in trials if t.number in numbers]
    return Sheet("best", f"Best trials of {search.name}", _columns(search) + _policy(search), tuple(rows), notes)


def _columns(search: Search) -> tuple[Column, ...]:
    objectives = [Column(name, OBJECTIVES[name].label, "percent") for name in search.spec.objectives]
    knobs = [Column(name, name) for name in search.definition.space]
    return (Column("trial", "trial"), *objectives, *knobs)


def _policy(search: Search) -> tuple[Column, ...]:
    return (Column(KL, "KL, nats/token", "mark"),) if search.spec.policy else ()


def _row(trial: FrozenTrial, search: Search) -> tuple[Value, ...]:
    outcomes = trial.user_attrs[OUTCOMES].values()
    knobs = [_knob(trial.params[name]) for name in search.definition.space]

    def over_seeds(names: Sequence[str]) -> list[Interval]:
        return [t_interval([seed[name] for seed in outcomes]) for name in names]

    further = over_seeds([column.name for column in _policy(search)])
    return (str(trial.number), *over_seeds(search.spec.objectives), *knobs, *further)


def _knob(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def all_trials(study: OptunaStudy, search: Search) -> Sheet | None:
    """Return the table of all trials with state, sampler, and the reason if there is no value."""
    trials = study.get_trials(deepcopy=False)
    if not trials:
        return None
    states = _states(study)
    rows: list[tuple[Value, ...]] = [
        (
            str(trial.number),
            states[trial.number],
            str(trial.user_attrs.get(SAMPLER, "")),
            *(final_values(trial) or [math.nan] * len(search.directions)),
            *(_knob(trial.params[name]) if name in trial.params else "" for name in search.definition.space),
            trial.duration.total_seconds() if trial.duration else math.nan,
            str(trial.user_attrs.get(REASON, "")),
        )
        for trial in trials
    ]
    first, *rest = _columns(search)
    head = (first, Column("state", "state"), Column("drawn_by", "drawn by"), *rest)
    head += (Column("seconds", "seconds", "count"), Column("reason", "reason"))
    return Sheet("trials", f"All trials of {search.name}", head, tuple(rows), (f"{_counts(study)}.",))


def _states(study: OptunaStudy) -> dict[int, str]:
    trials = study.get_trials(deepcopy=False)
    states = {trial.number: trial.state.name.lower() for trial in trials}
    return states | dict.fromkeys(lost_trials(trials), "lost and run again")


def _counts(study: OptunaStudy) -> str:
    states = list(_states(study).values())
    return ", ".join(f"{states.count(name)} {name}" for name in dict.fromkeys(sorted(states)))


def importance(study: OptunaStudy, search: Search) -> Sheet | None:
    """Return the table of importances for the first objective, by fANOVA and by PED-ANOVA (for the best tenth of trials).

    They are computed from the trials that cover the space evenly if there are at least `LEAST`, otherwise from all trials, with a
    caveat. None if there are too few trials.
    """
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    evenly = evenly_drawn(complete(study))
    trials = evenly if len(evenly) >= LEAST else complete(study)
    if len(trials) < LEAST or len({t.values[0] for t in trials}) < 2:
        return None

    def target(trial: FrozenTrial) -> float:
        return float(trial.values[0])

    subset = with_trials(search, trials)
    fanova = get_param_importances(subset, evaluator=FanovaImportanceEvaluator(seed=search.seed), target=target)
    sign = -1 if search.directions[0] == "maximize" else 1  # PED-ANOVA explains low targets
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns that it does
        ped = get_param_importances(subset, evaluator=PedAnovaImportanceEvaluator(), target=lambda t: sign * target(t))
    rows = tuple((name, fanova[name], ped.get(name, math.nan)) for name in fanova)
    columns = (
        Column("knob", "hyperparameter"),
        Column("fanova", "fANOVA, %", "share"),
        Column("ped_anova", "PED-ANOVA, %", "share"),
    )
    samplers = " and ".join(sorted({str(t.user_attrs.get(SAMPLER, "")) for t in trials} & set(EVEN)))
    notes = (
        f"From {len(trials)} complete trials, first objective. fANOVA: share of the variance over the space. PED-ANOVA: what "
        "separates the best tenth from the rest. Both contain the noise between seeds: do not interpret small shares.",
        f"The trials were drawn by {samplers}, so they cover the space evenly."
        if trials == evenly
        else "The sampler was adaptive or points were enqueued, so the trials do not cover the space evenly: interpret these "
        f"importances with care, or run at least {LEAST} trials with --sampler qmc.",
    )
    return Sheet("importance", f"Importance of the hyperparameters in {search.name}", columns, rows, notes)


def with_trials(search: Search, trials: Sequence[FrozenTrial]) -> OptunaStudy:
    """Return an in-memory study with these trials only."""
    import optuna

    directions: Sequence[Any] = search.directions
    study = optuna.create_study(directions=directions)
    study.add_trials(trials)
    return study
