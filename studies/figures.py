"""Figures of a study, drawn by Optuna.

The journal or database opens in Optuna's dashboard, which shows all others interactively.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from optuna.study import Study as OptunaStudy

from ablations.rendering.figure_style import save
from studies.catalogue import knobs_of
from studies.results import LEAST, complete, evaluator, evenly_drawn, importance_trials, with_trials
from studies.search import Search
from studies.trial import OBJECTIVES

SIZES = {"surface": (8.0, 5.6), "slice": (14.0, 3.2)}
"""Width and height of larger figures, in inches."""


def draw(study: OptunaStudy, search: Search, folder: Path) -> list[Path]:
    """Write every figure for which there are enough trials, as PDF and PNG, and return the files.

    All but ``pareto`` show the first objective. ``surface`` shows contours over the main strengths (`Knob.surface`), only from
    trials that cover the space evenly (QMC or random).
    """
    from optuna.visualization import matplotlib as optunas

    trials, importants, evenly = complete(study), importance_trials(study), evenly_drawn(complete(study))
    labels = [OBJECTIVES[name].label for name in search.spec.objectives]
    target: dict[str, Any] = {"target_name": labels[0]}
    if len(labels) > 1:  # with one objective, Optuna draws the best value so far too
        target["target"] = lambda trial: trial.values[0]
    axes = [knob.name for knob in knobs_of() if knob.surface and knob.name in search.definition.space]
    plots: dict[str, Callable[[], Any]] = {}
    if len(trials) > 1:
        finished = with_trials(search, trials)
        plots["history"] = lambda: optunas.plot_optimization_history(finished, **target)
        plots["slice"] = lambda: optunas.plot_slice(finished, **target)
        if 1 < len(labels) < 4:
            plots["pareto"] = lambda: optunas.plot_pareto_front(finished, target_names=labels)
    if importants:
        subset = with_trials(search, importants)
        plots["importance"] = lambda: optunas.plot_param_importances(subset, evaluator=evaluator(), **target)
    if len(axes) > 1 and len(evenly) >= LEAST:
        plots["surface"] = lambda: optunas.plot_contour(with_trials(search, evenly), params=axes, **target)
    return [path for name, plot in plots.items() for path in optunas_figure(plot, folder, name)]


def optunas_figure(plot: Callable[[], Any], folder: Path, name: str) -> list[Path]:
    """Save a figure that Optuna draws, without keeping the global style that it sets."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental in Optuna; the pinned version is tested
        axes = np.ravel(plot())
        figure = axes[0].figure
        figure.set_size_inches(SIZES.get(name, (6.0, 4.0)))
        figure.set_layout_engine("constrained")
        figure.suptitle("")
        for one in axes:
            for place in ("left", "center"):
                one.set_title("", loc=place)
        files = save(figure, folder, name)
        plt.close(figure)
    return files
