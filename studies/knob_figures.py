"""Figures over the hyperparameters of a study: slices, parallel coordinates, contours, response surface."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from ablations.rendering.figure_style import GREY, NARROW, VERMILION, WIDE, figure_of, save
from studies.catalogue import knobs_of
from studies.results import LEAST, complete, evenly_drawn
from studies.search import OUTCOMES, Search
from studies.trial import OBJECTIVES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna.study import Study as OptunaStudy
    from optuna.trial import FrozenTrial

GRID = 40
"""Points per side of the response surface."""
STAR: dict[str, Any] = {"marker": "*", "ms": 9, "color": VERMILION, "mec": "white", "linestyle": "none"}
"""Marker of the paper's values in all figures."""


def axes_of_surface() -> list[str]:
    """Return the hyperparameters of the response surface, and of the contours if the study searches them."""
    return [knob.name for knob in knobs_of() if knob.surface]


def draw(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    """Draw every figure for which there are enough trials, and return the files."""
    made = slices(study, search, folder) + parallel(study, search, folder) + contour(study, search, folder)
    return made + surface(study, search, folder)


def slices(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    """Draw ``slice``: the first objective over each hyperparameter."""
    trials, space = complete(study), search.definition.space
    columns = min(3, len(space))
    lines = -(-len(space) // columns)
    values = _first(trials)
    with figure_of(WIDE, 0.3 + 1.7 * lines, lines, columns, sharey=True) as (figure, axes):
        for axis in axes[len(space) :]:
            axis.set_visible(False)
        for axis, (knob, distribution) in zip(axes, space.items(), strict=False):
            axis.plot([unit(distribution, t.params[knob]) for t in trials], values, "o", ms=2.5, color=GREY)
            for trial, value in zip(trials, values, strict=True):
                if trial.number == 0:
                    axis.plot(unit(distribution, trial.params[knob]), value, **STAR)
            _ticks(axis, "x", distribution)
            axis.set(xlabel=knob)
        for axis in axes[::columns]:
            axis.set_ylabel(_label(search))
        return save(figure, folder, "slice")


def parallel(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    """Draw ``parallel``: one line per trial across all hyperparameters, colored by the first objective; the paper's dashed."""
    trials, space = complete(study), search.definition.space
    values = _first(trials)
    best = values.argsort() if search.directions[0] == "maximize" else values.argsort()[::-1]
    with figure_of(WIDE, 2.6) as (figure, (axis,)):
        import matplotlib as mpl

        norm = mpl.colors.Normalize(values.min(), values.max())
        colours = mpl.cm.ScalarMappable(norm, "viridis")
        for place in best:  # the best trial is drawn last, on top
            at = [unit(d, trials[place].params[knob]) for knob, d in space.items()]
            axis.plot(at, color=colours.to_rgba(values[place]), lw=0.9, alpha=0.8)
        paper = [unit(d, search.definition.paper[knob]) for knob, d in space.items()]
        axis.plot(paper, color=VERMILION, lw=1.2, ls="--", label="paper's values")
        for place, distribution in enumerate(space.values()):
            axis.axvline(place, color="0.3", lw=0.6)
            for height, name in _marks(distribution):
                axis.annotate(name, (place, height), (2, 0), textcoords="offset points", fontsize=5.5, va="center")
        axis.set_xticks(range(len(space)), list(space))
        axis.set(xlim=(0, len(space) - 0.75), yticks=[])
        axis.spines[["left", "bottom"]].set_visible(False)
        axis.legend(frameon=False, fontsize=6, loc="upper right", bbox_to_anchor=(1, 1.1))
        figure.colorbar(colours, ax=axis, label=_label(search))
        return save(figure, folder, "parallel")


def contour(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    """Draw ``contour``: the first objective over pairs of hyperparameters, linear between trials.

    Draw nothing if the trials lie on a line.
    """
    trials, space = complete(study), search.definition.space
    numeric = [knob for knob, d in space.items() if isinstance(d, FloatDistribution)]
    knobs = [knob for knob in axes_of_surface() if knob in numeric] or numeric[:3]
    pairs = list(combinations(knobs, 2))
    if not pairs or len(trials) < 4:
        return []
    values = _first(trials)
    paper = search.definition.paper
    with figure_of(WIDE if len(pairs) > 1 else NARROW, 2.4, 1, len(pairs)) as (figure, axes):
        for axis, (i, k) in zip(axes, pairs, strict=True):
            x, y = ([unit(space[knob], t.params[knob]) for t in trials] for knob in (i, k))
            try:
                level = axis.tricontourf(x, y, values, levels=8, cmap="viridis")
            except (ValueError, RuntimeError):  # the trials lie on a line
                return []
            axis.plot(x, y, ".", ms=2.5, color="white", mec="0.3", mew=0.3)
            axis.plot(unit(space[i], paper[i]), unit(space[k], paper[k]), **STAR)
            _both(axis, space, i, k)
        figure.colorbar(level, ax=axes, label=_label(search))
        return save(figure, folder, "contour")


def surface(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    """Draw ``surface``: Gaussian processes over pairs of hyperparameters.

    They model clean success and hacked share, or the first objective if the trials have neither. The other hyperparameters have
    the paper's values. Only trials that cover the space evenly (QMC or random) are used, and only if the study searches all
    hyperparameters of the surface. R² is from leave-one-out predictions: at or below 0, the surface shows noise.
    """
    trials, space = evenly_drawn(complete(study)), search.definition.space
    knobs = axes_of_surface()
    if not set(knobs) <= set(space) or len(knobs) < 2 or len(trials) < LEAST:
        return []
    from matplotlib.ticker import MaxNLocator

    outcomes = [[*t.user_attrs[OUTCOMES].values()] for t in trials]
    first = search.question.objectives[0]
    measures = [name for name in ("clean_success", "hacked_share") if name in outcomes[0][0]] or [first]
    x = np.array([[unit(space[knob], t.params[knob]) for knob in knobs] for t in trials])
    paper = np.array([unit(space[knob], search.definition.paper[knob]) for knob in knobs])
    pairs = list(combinations(range(len(knobs)), 2))
    ticks = np.linspace(0, 1, GRID)
    with figure_of(WIDE, 0.5 + 2.0 * len(measures), len(measures), len(pairs)) as (figure, axes):
        for line, name in enumerate(measures):
            y = 100 * np.array([np.mean([seed[name] for seed in own]) for own in outcomes])
            model, r2 = _process(x, y)
            own = axes[line * len(pairs) : (line + 1) * len(pairs)]
            points = [_plane(paper, i, k, ticks) for i, k in pairs]
            found = [model.predict(plane).reshape(GRID, GRID) for plane in points]
            low, high = min(f.min() for f in found), max(f.max() for f in found)
            levels = MaxNLocator(9).tick_values(low, high if high > low else low + 1)
            for axis, (i, k), z in zip(own, pairs, found, strict=True):
                level = axis.contourf(ticks, ticks, z, levels=levels, cmap="viridis")
                axis.plot(x[:, i], x[:, k], ".", ms=2.5, color="white", mec="0.3", mew=0.3)
                axis.plot(paper[i], paper[k], **STAR)
                _both(axis, space, knobs[i], knobs[k])
            own[0].set_title(f"{OBJECTIVES[name].label}, {len(trials)} trials, left-out R² {r2:.2f}", loc="left")
            figure.colorbar(level, ax=own, label=f"{OBJECTIVES[name].label} (%)")
        return save(figure, folder, "surface")


def _process(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[Any, float]:
    """Fit a Gaussian process with noise to ``y [n]`` at ``x [n, knobs]``; return it and its leave-one-out R² (kernel fixed)."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, WhiteKernel
    from sklearn.model_selection import LeaveOneOut, cross_val_predict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # length scale at its bound: the hyperparameter has no effect
        model = GaussianProcessRegressor(
            RBF([0.5] * x.shape[1], (0.1, 10)) + WhiteKernel(0.1), normalize_y=True, random_state=0
        ).fit(x, y)
        fixed = GaussianProcessRegressor(model.kernel_, optimizer=None, normalize_y=True)
        left_out = cross_val_predict(fixed, x, y, cv=LeaveOneOut())
    spread = float(np.sum((y - y.mean()) ** 2))
    return model, 1 - float(np.sum((y - left_out) ** 2)) / spread if spread else 0.0


def _plane(paper: NDArray[np.float64], i: int, k: int, ticks: NDArray[np.float64]) -> NDArray[np.float64]:
    points = np.tile(paper, (len(ticks) ** 2, 1))
    points[:, i], points[:, k] = (mesh.ravel() for mesh in np.meshgrid(ticks, ticks))
    return points


def unit(distribution: BaseDistribution, value: Any) -> float:
    """Return where a value lies in its range, from 0 to 1 on the scale of the search; choices are spaced evenly."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices.index(value) / max(1, len(distribution.choices) - 1)
    assert isinstance(distribution, FloatDistribution), "hyperparameters are numbers or choices"
    low, high, at = (np.log(v) if distribution.log else v for v in (distribution.low, distribution.high, value))
    return float((at - low) / (high - low))


def _marks(distribution: BaseDistribution) -> list[tuple[float, str]]:
    """Return tick positions from 0 to 1, with their labels."""
    if isinstance(distribution, CategoricalDistribution):
        return [(unit(distribution, choice), str(choice)) for choice in distribution.choices]
    assert isinstance(distribution, FloatDistribution), "hyperparameters are numbers or choices"
    low, high = distribution.low, distribution.high
    middle = (low * high) ** 0.5 if distribution.log else (low + high) / 2
    return [(0.0, f"{low:.3g}"), (0.5, f"{middle:.2g}"), (1.0, f"{high:.3g}")]


def _ticks(axis: Axes, which: str, distribution: BaseDistribution) -> None:
    places, names = zip(*_marks(distribution), strict=True)
    (axis.xaxis if which == "x" else axis.yaxis).set_ticks(places, names)
    (axis.set_xlim if which == "x" else axis.set_ylim)(-0.03, 1.03)


def _both(axis: Axes, space: Any, i: str, k: str) -> None:
    _ticks(axis, "x", space[i])
    _ticks(axis, "y", space[k])
    axis.set(xlabel=i, ylabel=k)


def _first(trials: Sequence[FrozenTrial]) -> NDArray[np.float64]:
    return 100 * np.array([t.values[0] for t in trials])


def _label(search: Search) -> str:
    return f"{OBJECTIVES[search.question.objectives[0]].label} (%)"
