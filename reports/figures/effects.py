"""What each component does, as pictures: forest plot, every seed's dot, interactions, Shapley bars."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ablations.contrasts import COMPONENTS, NAMES, arm_of, subsets
from ablations.figure_style import (
    BLUE,
    GREY,
    NARROW,
    VERMILION,
    WIDE,
    drawable,
    figure_of,
    look,
    percent,
    points,
    save,
)
from ablations.records import GOLD_GAIN, Record
from ablations.statistics import t_interval
from ablations.summary import gold_gains, value_of
from reports.effects import Row
from reports.figures.labels import beside
from reports.tables import heading_of, unit_of
from reports.verdicts import MARGIN

FOREST = (
    "Contrasts of gold gain at matched KL within each seed: mean with 95 % t-interval, every seed a tick. "
    "Filled: the declared "
    "primary family; hollow: secondary, not tested. Grey band: the margin of three points inside which a difference "
    "counts as none."
)
SEEDS = "{measure} by arm: every seed a dot, beside it the mean with its 95 % t-interval."
INTERACTIONS = (
    "Mean gold gain at matched KL with one component off and on, by another: parallel lines mean no interaction. Bars: 95 % "
    "t-intervals of the means over seeds (not of the differences, which are in the table of effects)."
)
SHAPLEY = (
    "Exact Shapley values: how the gain of RRPO over DiffRO divides among its components; the bars add up to the "
    "last. Mean and 95 % "
    "t-interval over seeds."
)


def forest(rows: Sequence[Row], folder: Path) -> list[Path]:
    """``forest.pdf`` and ``.png``; nothing without contrasts. Shapley values have their own picture."""
    shown = [row for row in rows if "Shapley" not in row.name]
    if not shown:
        return []
    with figure_of(WIDE, 0.6 + 0.2 * len(shown)) as (figure, (axis,)):
        axis.axvspan(-MARGIN, MARGIN, color="0.93", lw=0)
        axis.axvline(0, color="0.4", lw=0.6)
        for place, row in enumerate(reversed(shown)):
            mean = row.test.mean
            colour = BLUE if row.primary else "0.35"
            if drawable(mean):
                axis.plot([mean.low, mean.high], [place, place], color=colour, lw=1.4, solid_capstyle="butt")
            axis.plot(mean.mean, place, "o", ms=4.5, mfc=colour if row.primary else "white", mec=colour)
            axis.plot(row.values, np.full(len(row.values), place - 0.3), "|", ms=4, color=GREY, mew=0.7)
        axis.set_yticks(range(len(shown)), [row.name for row in reversed(shown)])
        axis.set_ylim(-0.7, len(shown) - 0.4)
        axis.xaxis.set_major_formatter(points)
        axis.set_xlabel("difference of gold gain at matched KL (points)")
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", lw=0.3, color="0.9")
        axis.set_axisbelow(True)
        return save(figure, folder, "forest")


def seeds(records: Sequence[Record], folder: Path, metric: str = GOLD_GAIN) -> list[Path]:
    """``seeds.pdf`` and ``.png`` of a measure; nothing where no cell has it."""
    gains, _ = gold_gains(records)
    found = {arm: [] for arm in dict.fromkeys(r.label for r in records)}  # type: dict[str, list[float]]
    for record in records:
        value = value_of(record, metric, gains)
        if math.isfinite(value):
            found[record.label].append(value)
    found = {arm: values for arm, values in found.items() if values}
    if not found:
        return []
    unit = unit_of(metric)
    with figure_of(WIDE, 2.3) as (figure, (axis,)):
        if unit == "gain":
            axis.axhline(0, color="0.4", lw=0.6)
        for place, (arm, values) in enumerate(found.items()):
            colour, _, marker = look(arm)
            jitter = np.linspace(-0.13, 0.13, len(values)) if len(values) > 1 else np.zeros(1)
            axis.plot(place - 0.12 + jitter, values, "o", ms=2.2, color=GREY, mew=0)
            mean = t_interval(values)
            if drawable(mean):
                axis.plot([place + 0.22] * 2, [mean.low, mean.high], color=colour, lw=1.3)
            axis.plot(place + 0.22, mean.mean, marker, ms=4.5, color=colour)
        axis.set_xticks(range(len(found)), [arm.replace("_", "\n").replace("@", "\n@") for arm in found])
        if unit in ("gain", "percent"):
            axis.yaxis.set_major_formatter(points if unit == "gain" else percent)
        heading = heading_of(metric)
        axis.set_ylabel(textwrap.fill(heading.replace(", points", " (points)").replace(", %", ""), 32))
        axis.grid(axis="y", lw=0.3, color="0.9")
        axis.set_axisbelow(True)
        return save(figure, folder, "seeds")


def interactions(records: Sequence[Record], folder: Path) -> list[Path]:
    """``interactions.pdf`` and ``.png``; nothing unless the whole factorial is there."""
    gains, _ = gold_gains(records)
    arms = [arm_of(on) for on in subsets()]
    common = [
        s for s in sorted({r.seed for r in records}) if all(math.isfinite(gains.get((a, s), math.nan)) for a in arms)
    ]
    if not common:
        return []
    pairs = [(a, b) for i, a in enumerate(COMPONENTS) for b in COMPONENTS[i + 1 :]]
    with figure_of(WIDE, 2.1, 1, len(pairs), sharey=True) as (figure, axes):
        labels = []
        for axis, (a, b) in zip(axes, pairs, strict=True):
            ends = []
            for on, colour, dashes, marker in ((False, "black", "--", "s"), (True, VERMILION, "-", "o")):
                means = []
                for level in (False, True):
                    group = [arm_of(parts) for parts in subsets() if (a in parts) == level and (b in parts) == on]
                    means.append(t_interval([float(np.mean([gains[arm, seed] for arm in group])) for seed in common]))
                x = np.array([0, 1]) + (0.02 if on else -0.02)
                y = [mean.mean for mean in means]
                if drawable(means[0]):
                    axis.errorbar(x, y, yerr=[m.high - m.mean for m in means], color=colour, lw=0.8, ls="none")
                axis.plot(x, y, marker=marker, color=colour, ls=dashes, lw=1.4, ms=4)
                ends.append((f"{'with' if on else 'no'} {NAMES[b]}", colour, y[1]))
            labels.append((axis, ends))
            axis.set_xticks([0, 1], [f"no {NAMES[a]}", f"with {NAMES[a]}"])
            axis.set_xlim(-0.2, 1.55)
            axis.set_title(f"{NAMES[a]} × {NAMES[b]}", loc="left")
            axis.yaxis.set_major_formatter(points)
        for axis, ends in labels:
            places = beside(axis, [end[2] for end in ends], 0.09)
            for (text, colour, _), place in zip(ends, places, strict=True):
                axis.annotate(text, (1.1, place), color=colour, va="center", fontsize=6.5)
        axes[0].set_ylabel("gold gain at matched KL (points)")
        return save(figure, folder, "interactions")


def shapley(rows: Sequence[Row], folder: Path) -> list[Path]:
    """``shapley.pdf`` and ``.png``; nothing unless all components' values are there."""
    parts = [(row.name.split(",")[0], row) for row in rows if "Shapley" in row.name]
    whole = [("RRPO - DiffRO", row) for row in rows if row.name == "RRPO - DiffRO"]
    if len(parts) != len(COMPONENTS) or not whole:
        return []
    with figure_of(NARROW, 1.7) as (figure, (axis,)):
        axis.axvline(0, color="0.4", lw=0.6)
        for place, (name, row) in enumerate(reversed(parts + whole)):
            mean = row.test.mean
            axis.barh(place, mean.mean, height=0.62, color=BLUE if name in NAMES.values() else "0.75", lw=0)
            if drawable(mean):
                axis.plot([mean.low, mean.high], [place, place], color="black", lw=1.0)
        axis.set_yticks(range(len(parts) + 1), [name for name, _ in reversed(parts + whole)])
        axis.tick_params(axis="y", length=0)
        axis.xaxis.set_major_formatter(points)
        axis.set_xlabel("share of the gain (points)")
        return save(figure, folder, "shapley")
