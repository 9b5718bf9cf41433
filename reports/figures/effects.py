"""Figures of effects: forest plot, and values of every seed."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ablations.outcomes import find
from ablations.rendering.figure_style import BLUE, GREY, WIDE, drawable, figure_of, percent, points, save, style_of
from ablations.stats.family import MARGIN, PRIMARY_OUTCOME, margin_text, primary
from ablations.stats.statistics import t_interval
from ablations.tracking.records import Record
from reports.verdicts import Row

SEEDS = "{measure} by arm: one dot per seed, and the mean with its 95 % t-interval."


def forest_caption() -> str:
    """Return the caption of the forest plot."""
    return (
        f"Contrasts of the {primary().label} within seeds; one tick per seed. Filled: primary family, mean with "
        "simultaneous interval. Hollow: secondary contrasts, not tested, mean with 95 % t-interval (RRPO - SFT at "
        f"the family's level). Gray band: equivalence margin of {margin_text()}."
    )


def forest(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw ``forest.pdf`` and ``.png``; nothing without contrasts."""
    if not rows:
        return []
    with figure_of(WIDE, 0.6 + 0.2 * len(rows)) as (figure, (axis,)):
        axis.axvspan(-MARGIN, MARGIN, color="0.93", lw=0)
        axis.axvline(0, color="0.4", lw=0.6)
        for y, row in enumerate(reversed(rows)):
            mean = row.interval
            colour = BLUE if row.primary else "0.35"
            if drawable(mean):
                axis.plot([mean.low, mean.high], [y, y], color=colour, lw=1.4, solid_capstyle="butt")
            axis.plot(mean.mean, y, "o", ms=4.5, mfc=colour if row.primary else "white", mec=colour)
            axis.plot(row.values, np.full(len(row.values), y - 0.3), "|", ms=4, color=GREY, mew=0.7)
        axis.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
        axis.set_ylim(-0.7, len(rows) - 0.4)
        axis.xaxis.set_major_formatter(points)
        axis.set_xlabel(f"difference of {primary().label} (points)")
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", lw=0.3, color="0.9")
        axis.set_axisbelow(True)
        return save(figure, folder, "forest")


def seeds(records: Sequence[Record], folder: Path, metric: str = PRIMARY_OUTCOME) -> list[Path]:
    """Draw ``seeds.pdf`` and ``.png`` of a measure; nothing if no cell has it."""
    outcome = find(metric)
    by_arm: dict[str, list[float]] = {arm: [] for arm in dict.fromkeys(record.label for record in records)}
    for (arm, _), value in outcome.values(records).items():
        if math.isfinite(value):
            by_arm[arm].append(value)
    by_arm = {arm: values for arm, values in by_arm.items() if values}
    if not by_arm:
        return []
    unit = outcome.unit
    with figure_of(WIDE, 2.3) as (figure, (axis,)):
        if unit == "gain":
            axis.axhline(0, color="0.4", lw=0.6)
        for x, (arm, values) in enumerate(by_arm.items()):
            colour, _, marker = style_of(arm)
            jitter = np.linspace(-0.13, 0.13, len(values)) if len(values) > 1 else np.zeros(1)
            axis.plot(x - 0.12 + jitter, values, "o", ms=2.2, color=GREY, mew=0)
            mean = t_interval(values)
            if drawable(mean):
                axis.plot([x + 0.22] * 2, [mean.low, mean.high], color=colour, lw=1.3)
            axis.plot(x + 0.22, mean.mean, marker, ms=4.5, color=colour)
        axis.set_xticks(range(len(by_arm)), [arm.replace("_", "\n").replace("@", "\n@") for arm in by_arm])
        if unit in ("gain", "percent"):
            axis.yaxis.set_major_formatter(points if unit == "gain" else percent)
        axis.set_ylabel(textwrap.fill(outcome.heading.replace(", points", " (points)").replace(", %", ""), 32))
        axis.grid(axis="y", lw=0.3, color="0.9")
        axis.set_axisbelow(True)
        return save(figure, folder, "seeds")
