"""Figures of a study: Optuna's own, and a response surface.

The journal or database opens in Optuna's dashboard, which shows all others interactively.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ablations.rendering.figure_style import BLUE, NARROW, VERMILION, WIDE, figure_of, save
from studies.catalogue import knobs_of
from studies.results import LEAST, complete, evenly_drawn, importance, with_trials
from studies.search import Search
from studies.trial import OBJECTIVES

if TYPE_CHECKING:
    from optuna.distributions import FloatDistribution
    from optuna.study import Study as OptunaStudy

GRID = 40
"""Points per side of the response surface."""


def draw(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    """Write every figure for which there are enough trials, as PDF and PNG, and return the files."""
    from optuna.visualization import matplotlib as optunas

    trials = complete(study)
    if len(trials) < 2:
        return []
    finished = with_trials(search, trials)
    labels = [OBJECTIVES[name].label for name in search.spec.objectives]
    target: dict[str, Any] = {"target": lambda trial: trial.values[0], "target_name": labels[0]}
    plots: dict[str, Callable[[], Any]] = {
        "history": lambda: optunas.plot_optimization_history(finished, **target),
        "slice": lambda: optunas.plot_slice(finished, **target),
    }
    if 1 < len(labels) < 4:
        plots["pareto"] = lambda: optunas.plot_pareto_front(finished, target_names=labels)
    files = [path for name, plot in plots.items() for path in optunas_figure(plot, folder, name)]
    return files + importances(study, search, folder) + surface(study, search, folder)


def optunas_figure(plot: Callable[[], Any], folder: Path, name: str) -> list[Path]:
    """Save a figure that Optuna draws, without keeping the global style that it sets."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental in Optuna; the pinned version is tested
        figure = np.ravel(plot())[0].figure
        figure.set_layout_engine("constrained")
        files = save(figure, folder, name)
        plt.close(figure)
    return files


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
        axis.set_xlabel(f"{OBJECTIVES[search.spec.objectives[0]].label}: % of its variance (fANOVA)")
        return save(figure, folder, "importance")


def surface(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    """Draw ``surface``: a Gaussian process of each objective over pairs of the main strengths (`Knob.surface`).

    The other hyperparameters have the paper's values, marked by a star. Only trials that cover the space evenly (QMC or random)
    are used. R² is from leave-one-out predictions: at or below 0, the surface shows noise.
    """
    space, trials = search.definition.space, evenly_drawn(complete(study))
    knobs: dict[str, Any] = {knob.name: space[knob.name] for knob in knobs_of() if knob.surface and knob.name in space}
    if len(knobs) < 2 or len(trials) < LEAST:
        return []
    tried = {name: np.array([trial.params[name] for trial in trials]) for name in knobs}
    paper = {name: float(search.definition.paper[name]) for name in knobs}
    sides = {name: (np.geomspace if d.log else np.linspace)(d.low, d.high, GRID) for name, d in knobs.items()}
    x = np.column_stack([unit(d, tried[name]) for name, d in knobs.items()])
    pairs, objectives = list(combinations(knobs, 2)), search.spec.objectives
    with figure_of(WIDE, 0.5 + 2.0 * len(objectives), len(objectives), len(pairs)) as (figure, axes):
        for row, objective in enumerate(objectives):
            model, r2 = _process(x, 100 * np.array([trial.values[row] for trial in trials]))
            grids = []
            for i, k in pairs:
                mesh = dict(zip((i, k), np.meshgrid(sides[i], sides[k]), strict=True))
                points = [unit(d, mesh.get(name, np.full((GRID, GRID), paper[name]))) for name, d in knobs.items()]
                grids.append(model.predict(np.stack(points, -1).reshape(-1, len(knobs))).reshape(GRID, GRID))
            row_axes = axes[row * len(pairs) : (row + 1) * len(pairs)]
            for axis, (i, k), z in zip(row_axes, pairs, grids, strict=True):
                level = axis.pcolormesh(sides[i], sides[k], z, vmin=np.min(grids), vmax=np.max(grids), rasterized=True)
                axis.plot(tried[i], tried[k], ".", ms=2.5, color="white", mec="0.3", mew=0.3)
                axis.plot(paper[i], paper[k], "*", ms=9, color=VERMILION, mec="white")
                axis.set(xlabel=i, ylabel=k, xscale=_scale(knobs[i]), yscale=_scale(knobs[k]))
            label = OBJECTIVES[objective].label
            row_axes[0].set_title(f"{label}, {len(trials)} trials, left-out R² {r2:.2f}", loc="left")
            figure.colorbar(level, ax=row_axes, label=f"{label} (%)")
        return save(figure, folder, "surface")


def _process(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[Any, float]:
    """Fit a Gaussian process with noise to ``y [n]`` at ``x [n, knobs]``; return it and its leave-one-out R² (kernel fixed)."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, WhiteKernel
    from sklearn.metrics import r2_score
    from sklearn.model_selection import LeaveOneOut, cross_val_predict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # length scale at its bound: the hyperparameter has no effect
        model = GaussianProcessRegressor(
            RBF([0.5] * x.shape[1], (0.1, 10)) + WhiteKernel(0.1), normalize_y=True, random_state=0
        ).fit(x, y)
        fixed = GaussianProcessRegressor(model.kernel_, optimizer=None, normalize_y=True)
        return model, float(r2_score(y, cross_val_predict(fixed, x, y, cv=LeaveOneOut())))


def unit(distribution: FloatDistribution, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where values lie in their range, from 0 to 1 on the scale of the search."""
    scaled = np.log if distribution.log else np.asarray
    low, high = scaled(distribution.low), scaled(distribution.high)
    fractions: NDArray[np.float64] = (scaled(values) - low) / (high - low)
    return fractions


def _scale(distribution: FloatDistribution) -> str:
    return "log" if distribution.log else "linear"
