"""What a study found, as tables: best trials, Pareto front, importances, and the check of the winner on fresh seeds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ablations.inference import equivalence, paired_test
from ablations.sheet import Column, Sheet, Value
from ablations.statistics import t_interval
from studies.search import OUTCOMES, Search
from studies.trial import OBJECTIVES

if TYPE_CHECKING:
    from optuna.study import Study as OptunaStudy
    from optuna.trial import FrozenTrial

BEST = 10
"""Trials in the table of the best."""
MARGIN = 0.03
"""Three points, as in the reports."""
LEAST = 8
"""Complete trials below which importances are not given."""


def complete(study: OptunaStudy) -> list[FrozenTrial]:
    """Complete, feasible trials."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [t for t in trials if all(value <= 0 for value in (t.constraints or {}).values()) and _finite(t)]


def _finite(trial: FrozenTrial) -> bool:
    return all(math.isfinite(value) for value in trial.values)


def ranked(study: OptunaStudy, search: Search) -> list[FrozenTrial]:
    """Complete trials, best first objective first."""
    sign = -1 if search.directions[0] == "maximize" else 1
    return sorted(complete(study), key=lambda t: (sign * t.values[0], t.number))


def sheets(study: OptunaStudy, search: Search) -> list[Sheet]:
    """Every table that the trials allow."""
    made = (best(study, search), pareto(study, search), importance(study, search))
    return [sheet for sheet in made if sheet is not None]


def best(study: OptunaStudy, search: Search) -> Sheet | None:
    """The best trials and the paper's values, whose trial is always number 0."""
    found = ranked(study, search)
    if not found:
        return None
    shown = found[:BEST] + [t for t in found[BEST:] if t.number == 0]
    rows = [_row(t, search) for t in shown]
    counts = _counts(study)
    notes = (
        f"{counts}. Mean over seeds {', '.join(map(str, search.question.seeds))} (development) ± half the 95 % "
        "t-interval, by the `val` "
        "judge. The best of many noisy trials is biased upwards: believe the check on fresh seeds. Trial 0 has the "
        "paper's values.",
    )
    return Sheet("best", f"Best trials of {search.name}", _columns(search), tuple(rows), notes)


def pareto(study: OptunaStudy, search: Search) -> Sheet | None:
    """The trials that no other beats in every objective; None for one objective."""
    if len(search.directions) < 2 or not complete(study):
        return None
    numbers = {t.number for t in study.best_trials}
    rows = [_row(t, search) for t in ranked(study, search) if t.number in numbers]
    notes = (f"{_counts(study)}. No other trial is at least as good in every objective and better in one.",)
    return Sheet("pareto", f"Pareto front of {search.name}", _columns(search), tuple(rows), notes) if rows else None


def _columns(search: Search) -> tuple[Column, ...]:
    objectives = [
        Column(name, OBJECTIVES[name].text, "gain" if name == "gold_gain" else "percent")
        for name in search.question.objectives
    ]
    knobs = [Column(name, name) for name in search.definition.space]
    return (Column("trial", "trial"), *objectives, *knobs)


def _row(trial: FrozenTrial, search: Search) -> tuple[Value, ...]:
    outcomes = trial.user_attrs[OUTCOMES].values()
    values = [t_interval([seed[name] for seed in outcomes]) for name in search.question.objectives]
    knobs = [_knob(trial.params[name]) for name in search.definition.space]
    return (str(trial.number), *values, *knobs)


def _knob(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def _counts(study: OptunaStudy) -> str:
    states = [t.state.name.lower() for t in study.get_trials(deepcopy=False)]
    return ", ".join(f"{states.count(name)} {name}" for name in dict.fromkeys(sorted(states)))


def importance(study: OptunaStudy, search: Search) -> Sheet | None:
    """Shares of the first objective's variance by fANOVA, and of its best tenth by PED-ANOVA, side by side."""
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    trials = complete(study)
    if len(trials) < LEAST or len({t.values[0] for t in trials}) < 2:
        return None

    def first(trial: FrozenTrial) -> float:
        return float(trial.values[0])

    fanova = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=search.seed), target=first)
    sign = -1 if search.directions[0] == "maximize" else 1  # PED-ANOVA asks what makes its target low
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which says so
        ped = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), target=lambda t: sign * first(t))
    rows = tuple((name, fanova[name], ped.get(name, math.nan)) for name in fanova)
    columns = (
        Column("knob", "knob"),
        Column("fanova", "fANOVA, %", "share"),
        Column("ped_anova", "PED-ANOVA, %", "share"),
    )
    adaptive = search.sampler not in ("random", "qmc")
    notes = (
        f"From {len(trials)} complete trials, first objective. fANOVA: share of the variance over the space; "
        "PED-ANOVA: what tells the "
        "best tenth from the rest.",
        "The sampler was adaptive, so the trials crowd where it looked: read these with care, or search with --sampler qmc."
        if adaptive
        else f"The trials were drawn by {search.sampler}, so they cover the space evenly.",
    )
    return Sheet("importance", f"Importance of the knobs in {search.name}", columns, rows, notes)


def verdict(
    name: str,
    direction: str,
    best_values: Mapping[int, float],
    paper_values: Mapping[int, float],
    unit_margin: float = MARGIN,
) -> Sheet:
    """Whether the winner differs from the paper's values on seeds that the search never used; the last note is the answer."""
    seeds: Sequence[int] = sorted(best_values.keys() & paper_values.keys())
    x = np.array([best_values[s] - paper_values[s] for s in seeds])
    test, tost = paired_test(x), equivalence(x, unit_margin)
    sign = 1 if direction == "maximize" else -1
    if math.isfinite(test.t_p) and test.t_p < 0.05:
        word = "better than" if sign * x.mean() > 0 else "worse than"
    elif math.isfinite(tost) and tost < 0.05:
        word = "equivalent to"
    else:
        word = "not distinguishable from"
    columns = (
        Column("setting", "setting"),
        Column("value", OBJECTIVES[name].text, "gain" if name == "gold_gain" else "percent"),
        Column("t_p", "p (paired t)", "p"),
        Column("sign_flip_p", "p (sign flip)", "p"),
        Column("tost_p", "p (TOST)", "p"),
    )
    rows: tuple[tuple[Value, ...], ...] = (
        ("best trial", t_interval([best_values[s] for s in seeds]), math.nan, math.nan, math.nan),
        ("paper's values", t_interval([paper_values[s] for s in seeds]), math.nan, math.nan, math.nan),
        ("difference", test.mean, test.t_p, test.sign_flip_p, tost),
    )
    sentence = f"On {len(seeds)} fresh seeds the best trial is {word} the paper's values by the `val` judge."
    notes = (
        f"Fresh development seeds {', '.join(map(str, seeds))}, which the search never used; one comparison, paired "
        "t, two-sided, alpha .05; "
        f"smallest possible p of the sign flips {test.sign_flip_floor:.4f}; TOST with a margin of {100 * unit_margin:g} points.",
        sentence,
    )
    return Sheet("fresh", "The winner on fresh seeds", columns, rows, notes)
