"""Figures of effects: forest plot, conclusions by setting, and values of every seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ablations.outcomes import find
from ablations.rendering import figure_style as style
from ablations.stats.family import MARGIN, PRIMARY_OUTCOME, margin_text, primary
from ablations.stats.statistics import t_interval
from ablations.tracking.records import Record
from reports.sensitivity import Finding
from reports.verdicts import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = {"better": ("o", style.BLUE), "worse": ("s", style.VERMILION), "equivalent": ("D", style.GREEN)}
"""Marker and color of a verdict."""
DRAWN = "drawn from three seeds on; all are in the tables"
"""Which intervals a figure shows."""
SEEDS = f"{{measure}} by arm: one dot per seed, and the mean with its 95 % t-interval ({DRAWN})."


def forest_caption() -> str:
    """Return the caption of the forest plot."""
    return (
        f"Contrasts of {primary().label} within seeds; one tick per seed. Filled: primary family, mean with "
        "simultaneous interval. Hollow: other contrasts, mean with 95 % t-interval (RRPO - SFT, which decides between "
        f"'stops' and 'reduces', at the family's level). Intervals: {DRAWN}. Gray band: equivalence margin of {margin_text()}."
    )


def forest(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw ``forest.pdf`` and ``.png``; nothing without contrasts."""
    if not rows:
        return []
    with style.figure_of(style.WIDE, 0.6 + 0.2 * len(rows)) as (figure, (axis,)):
        _differences(axis)
        for y, row in enumerate(reversed(rows)):
            mean = row.interval
            colour = style.BLUE if row.primary else "0.35"
            if style.drawable(mean):
                axis.plot([mean.low, mean.high], [y, y], color=colour, lw=1.4, solid_capstyle="butt")
            axis.plot(mean.mean, y, "o", ms=4.5, mfc=colour if row.primary else "white", mec=colour)
            axis.plot(row.values, np.full(len(row.values), y - 0.3), "|", ms=4, color=style.GREY, mew=0.7)
        axis.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
        axis.set_ylim(-0.7, len(rows) - 0.4)
        axis.set_xlabel(f"difference of {primary().label} (points)")
        axis.grid(axis="x", lw=0.3, color="0.9")
        axis.set_axisbelow(True)
        return style.save(figure, folder, "forest")


def _differences(axis: Axes) -> None:
    """Prepare an axis of differences in the primary outcome: the equivalence margin, and zero."""
    axis.axvspan(-MARGIN, MARGIN, color="0.93", lw=0)
    axis.axvline(0, color="0.4", lw=0.6)
    axis.xaxis.set_major_formatter(style.points)
    axis.tick_params(axis="y", length=0)


def reach_caption() -> str:
    """Return the caption."""
    return (
        f"Difference in {primary().label} for each conclusion and setting: mean with simultaneous interval ({DRAWN}). "
        "*: default setting; the dashed line marks its mean. Filled "
        "markers show verdicts: blue disc better, red square worse, green diamond equivalent; hollow: undecided, "
        f"interim, not tested or no verdict. Gray band: equivalence margin of {margin_text()}."
    )


def reach(findings: Sequence[Finding], folder: Path) -> list[Path]:
    """Draw ``reach.pdf`` and ``.png``; nothing below two settings."""
    settings = list(dict.fromkeys(finding.setting.name for finding in findings))
    names = list(dict.fromkeys(finding.name for finding in findings))
    if len(settings) < 2:
        return []
    from matplotlib.ticker import MaxNLocator

    with style.figure_of(style.WIDE, 0.7 + 0.17 * len(settings), 1, len(names), sharex=True, sharey=True) as (
        figure,
        axes,
    ):
        for axis, name in zip(axes, names, strict=True):
            _differences(axis)
            for finding in (finding for finding in findings if finding.name == name):
                y, mean = settings.index(finding.setting.name), finding.interval
                marker, colour = MARKS.get(finding.word, ("o", "0.35"))
                if style.drawable(mean):
                    axis.plot([mean.low, mean.high], [y, y], color=colour, lw=1.1, solid_capstyle="butt")
                filled = colour if finding.word in MARKS else "white"
                axis.plot(mean.mean, y, marker, ms=4, mfc=filled, mec=colour)
                if finding.setting.own:
                    axis.axvline(mean.mean, color=colour, lw=0.6, ls=(0, (4, 2)))
            axis.set_title(name.replace(", ", ",\n"), loc="left", pad=3)
            axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        names_shown = {f.setting.name: f"{f.setting.name.replace('_', ' ')}{' *' * f.setting.own}" for f in findings}
        axes[0].set_yticks(range(len(settings)), names_shown.values(), fontsize=6)
        axes[0].set_ylim(len(settings) - 0.5, -0.5)  # the grid's order from top to bottom, no marker on the frame
        figure.supxlabel(f"difference of {primary().label} (points)", fontsize=7.5)
        return style.save(figure, folder, "reach")


def seeds(records: Sequence[Record], folder: Path, metric: str = PRIMARY_OUTCOME) -> list[Path]:
    """Draw ``seeds.pdf`` and ``.png`` of a measure; nothing if no cell has it."""
    outcome = find(metric)
    by_arm: dict[str, list[float]] = {}
    for record in records:
        if math.isfinite(value := outcome.read(record)):
            by_arm.setdefault(record.label, []).append(value)
    if not by_arm:
        return []
    unit = outcome.unit
    with style.figure_of(style.WIDE, 0.6 + 0.2 * len(by_arm)) as (figure, (axis,)):
        if unit == "gain":
            axis.axvline(0, color="0.4", lw=0.6)
        for y, (arm, values) in enumerate(by_arm.items()):
            colour, _, marker = style.style_of(arm)
            axis.plot(values, np.full(len(values), y + 0.25), "o", ms=2.2, color=style.GREY, mew=0)
            mean = t_interval(values)
            if style.drawable(mean):
                axis.plot([mean.low, mean.high], [y, y], color=colour, lw=1.3, solid_capstyle="butt")
            axis.plot(mean.mean, y, marker, ms=4.5, color=colour)
        axis.set_yticks(range(len(by_arm)), by_arm)
        axis.set_ylim(len(by_arm) - 0.4, -0.6)  # the grid's order from top to bottom
        axis.tick_params(axis="y", length=0)
        if unit in ("gain", "percent"):
            axis.xaxis.set_major_formatter(style.points if unit == "gain" else style.percent)
        axis.set_xlabel(outcome.heading.replace(", points", " (points)").replace(", %", ""))
        axis.grid(axis="x", lw=0.3, color="0.9")
        axis.set_axisbelow(True)
        return style.save(figure, folder, "seeds")
