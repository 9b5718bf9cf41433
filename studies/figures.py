"""A study's figures in the house style; Optuna draws those it knows, the response surface is ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablations.figure_style import STYLE, VERMILION, WIDE, figure_of, save
from studies.results import LEAST, complete, evenly_drawn
from studies.search import OUTCOMES, Search

if TYPE_CHECKING:
    from optuna.study import Study as OptunaStudy

AXES = ("epsilon", "alpha", "epsilon_adv")
"""Knobs of the response surface."""
GRID = 40


def draw(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    """Every figure that the trials allow, as PDF and PNG."""
    if len(complete(study)) < 2:
        return []
    return _optuna(study, search, folder) + surface(study, search, folder)


def _optuna(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from optuna.visualization import matplotlib as plots

    several = len(search.directions) > 1
    name = search.question.objectives[0]
    only: dict[str, Any] = {"target_name": name} | ({"target": lambda t: t.values[0]} if several else {})
    knobs = [knob for knob in AXES if knob in search.definition.space] or list(search.definition.space)[:3]
    figures: dict[str, Callable[[], Any]] = {
        "history": lambda: plots.plot_optimization_history(study, **only),
        "slice": lambda: plots.plot_slice(study, **only),
        "parallel": lambda: plots.plot_parallel_coordinate(study, **only),
        "edf": lambda: plots.plot_edf(study, **only),
        "contour": lambda: plots.plot_contour(study, params=knobs, **only),
    }
    if several:
        worst = [
            max(t.values[k] for t in complete(study)) if d == "minimize" else min(t.values[k] for t in complete(study))
            for k, d in enumerate(search.directions)
        ]
        figures["hypervolume"] = lambda: plots.plot_hypervolume_history(study, worst)
    paths = []
    with mpl.rc_context(STYLE | {"font.size": 6, "axes.titlesize": 7.5}), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.simplefilter("ignore")
        for stem, make in figures.items():
            axes = np.atleast_1d(make()).flat
            figure = axes[0].figure
            wide = stem in ("slice", "contour", "parallel")
            figure.set_size_inches(WIDE, {"contour": 5.5, "slice": 2.2}.get(stem, 3.2) if wide else 3.0)
            figure.set_layout_engine("tight")  # constrained breaks on the grids that Optuna makes
            paths += save(figure, folder, stem)
            plt.close(figure)
    return paths


def surface(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    """``surface.pdf`` and ``.png``: a Gaussian process of gold and hack rate over pairs of knobs, others at the paper's values.

    Only from evenly covering trials (QMC or random); nothing otherwise, or where the knobs are not searched.
    """
    trials = evenly_drawn(complete(study))
    space = search.definition.space
    if not set(AXES) <= set(space) or len(trials) < LEAST:
        return []
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, WhiteKernel

    outcomes = [[*t.user_attrs[OUTCOMES].values()] for t in trials]
    measures = [name for name in ("gold_gain", "hack_rate") if name in outcomes[0][0]] or [
        search.question.objectives[0]
    ]
    x = np.array([[_unit(space[knob], t.params[knob]) for knob in AXES] for t in trials])
    paper = np.array([_unit(space[knob], search.definition.paper[knob]) for knob in AXES])
    pairs = [(0, 1), (0, 2), (1, 2)]
    ticks = np.linspace(0, 1, GRID)
    with (
        figure_of(WIDE, 0.4 + 2.1 * len(measures), len(measures), len(pairs)) as (figure, axes),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        for row, name in enumerate(measures):
            y = np.array([np.mean([seed[name] for seed in own]) for own in outcomes])
            model = GaussianProcessRegressor(
                RBF([0.5] * 3, (0.1, 10)) + WhiteKernel(0.1), normalize_y=True, random_state=0
            )
            model.fit(x, y)
            for column, (i, k) in enumerate(pairs):
                axis = axes[row * len(pairs) + column]
                points = np.tile(paper, (GRID * GRID, 1))
                points[:, i], points[:, k] = (mesh.ravel() for mesh in np.meshgrid(ticks, ticks))
                level = axis.contourf(
                    ticks, ticks, 100 * model.predict(points).reshape(GRID, GRID), levels=9, cmap="viridis"
                )
                axis.plot(x[:, i], x[:, k], ".", ms=2, color="white")
                axis.plot(paper[i], paper[k], "*", ms=9, color=VERMILION, mec="white")
                for axes_of, knob in ((axis.xaxis, AXES[i]), (axis.yaxis, AXES[k])):
                    axes_of.set_ticks([0, 0.5, 1], [f"{_value(space[knob], u):.3g}" for u in (0, 0.5, 1)])
                axis.set(xlabel=AXES[i], ylabel=AXES[k])
                if column == len(pairs) - 1:
                    figure.colorbar(level, ax=axis, label=f"{name.replace('_', ' ')} (points)")
        return save(figure, folder, "surface")


def _unit(distribution: Any, value: Any) -> float:
    """A knob's place in its range, on the scale it is searched on."""
    low, high, at = (np.log(v) if distribution.log else float(v) for v in (distribution.low, distribution.high, value))
    return float((at - low) / (high - low))


def _value(distribution: Any, unit: float) -> float:
    low, high = distribution.low, distribution.high
    return float(low * (high / low) ** unit if distribution.log else low + unit * (high - low))
