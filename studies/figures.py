"""Figures of a study: optimization history, importance of hyperparameters, distribution of values, Pareto front, hypervolume.

Figures over the hyperparameters are in `studies.knob_figures`. They are not drawn by Optuna, because its figures set a style of
their own and place color bars over the data.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ablations.rendering.figure_style import BLUE, GREY, NARROW, figure_of, save
from studies import knob_figures
from studies.knob_figures import STAR
from studies.results import complete, front, importance, with_trials
from studies.search import Search
from studies.trial import OBJECTIVES

if TYPE_CHECKING:
    from optuna.study import Study as OptunaStudy


def draw(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    """Write every figure for which there are enough trials, as PDF and PNG, and return the files."""
    if len(complete(study)) < 2:
        return []
    made = history(study, search, folder) + importances(study, search, folder) + distribution(study, search, folder)
    if len(search.directions) > 1:
        made += pareto(study, search, folder) + hypervolume(study, search, folder)
    return made + knob_figures.draw(study, search, folder)


def history(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    """Draw ``history``: the value of every objective by trial, and its best so far."""
    trials = complete(study)
    numbers = [t.number for t in trials]
    count = len(search.directions)
    with figure_of(NARROW, 0.4 + 1.6 * count, count, 1, sharex=True) as (figure, axes):
        for place, (axis, name) in enumerate(zip(axes, search.question.objectives, strict=True)):
            values = 100 * np.array([t.values[place] for t in trials])
            best = np.maximum if search.directions[place] == "maximize" else np.minimum
            axis.plot(numbers, values, "o", ms=2.5, color=GREY, label="trial")
            axis.step(numbers, best.accumulate(values), where="post", color=BLUE, lw=1, label="best so far")
            for number, value in zip(numbers, values, strict=True):
                if number == 0:
                    axis.plot(number, value, **STAR, label="paper's values")
            axis.set_ylabel(f"{OBJECTIVES[name].label} (%)")
        axes[0].legend(frameon=False, fontsize=6)
        axes[-1].set_xlabel("trial")
        return save(figure, folder, "history")


def importances(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    """Draw ``importance``: each hyperparameter's share of the first objective's variance (fANOVA); nothing for too few trials."""
    sheet = importance(study, search)
    if sheet is None:
        return []
    rows = [(str(name), 100 * share) for name, share, _ in reversed(sheet.rows) if isinstance(share, float)]
    names, shares = zip(*rows, strict=True)
    with figure_of(NARROW, 0.6 + 0.25 * len(names)) as (figure, (axis,)):
        bars = axis.barh(names, shares, color=BLUE, height=0.6)
        axis.bar_label(bars, fmt="%.0f", padding=2, fontsize=6)
        axis.set_xlabel(f"{OBJECTIVES[search.question.objectives[0]].label}: % of its variance (fANOVA)")
        return save(figure, folder, "importance")


def distribution(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    """Draw ``edf``: the empirical distribution function of every objective."""
    trials = complete(study)
    count = len(search.directions)
    with figure_of(NARROW, 0.4 + 1.6 * count, count, 1) as (figure, axes):
        for place, (axis, name) in enumerate(zip(axes, search.question.objectives, strict=True)):
            values = 100 * np.sort([t.values[place] for t in trials])
            shares = np.arange(1, len(values) + 1) / len(values)
            axis.step(np.r_[values[0], values], np.r_[0, shares], where="post", color=BLUE, lw=1)
            for trial in trials:
                if trial.number == 0:
                    value = 100 * trial.values[place]
                    axis.plot(value, np.mean(values <= value), **STAR, label="paper's values")
                    axis.legend(frameon=False, fontsize=6)
            axis.set(xlabel=f"{OBJECTIVES[name].label} (%)", ylabel="share of trials", ylim=(0, 1.04))
        return save(figure, folder, "edf")


def pareto(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    """Draw ``pareto``: the first objective against each of the others, with the Pareto front in color."""
    trials, best = complete(study), {t.number for t in front(study)}
    names = search.question.objectives
    others = range(1, len(names))
    with figure_of(NARROW * min(2, len(others)), 2.6, 1, len(others)) as (figure, axes):
        for axis, other in zip(axes, others, strict=True):
            for trial in trials:
                x, y = 100 * trial.values[other], 100 * trial.values[0]
                on = trial.number in best
                axis.plot(x, y, "o", ms=4 if on else 2.5, color=BLUE if on else GREY)
                if on:
                    axis.annotate(str(trial.number), (x, y), (3, 3), textcoords="offset points", fontsize=6)
                if trial.number == 0:
                    axis.plot(x, y, **STAR)
            axis.set(xlabel=f"{OBJECTIVES[names[other]].label} (%)", ylabel=f"{OBJECTIVES[names[0]].label} (%)")
        axes[0].set_title("blue: the front, by trial; star: the paper's values", loc="left")
        return save(figure, folder, "pareto")


def hypervolume(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    """Draw ``hypervolume`` by trial: the share of the box between worst and best values that the Pareto front dominates."""
    import warnings

    import matplotlib as mpl
    from matplotlib import pyplot as plt
    from matplotlib.figure import Figure
    from optuna.visualization.matplotlib import plot_hypervolume_history

    trials = complete(study)
    worst = [
        (max if direction == "minimize" else min)(t.values[place] for t in trials)
        for place, direction in enumerate(search.directions)
    ]
    with mpl.rc_context(), warnings.catch_warnings():  # Optuna sets a style of its own; only its numbers are used
        warnings.simplefilter("ignore")
        axes = plot_hypervolume_history(with_trials(search, trials), worst)
    volumes = np.asarray(axes.lines[0].get_ydata(), float)
    assert isinstance(axes.figure, Figure)
    plt.close(axes.figure)
    box = float(np.prod([np.ptp([t.values[place] for t in trials]) for place in range(len(worst))]))
    with figure_of(NARROW, 2.0) as (figure, (axis,)):
        axis.step([t.number for t in trials], 100 * volumes / box if box else volumes, where="post", color=BLUE, lw=1)
        axis.set(xlabel="trial", ylabel="hypervolume (% of the box\nfrom worst to best values)", ylim=(0, None))
        return save(figure, folder, "hypervolume")
