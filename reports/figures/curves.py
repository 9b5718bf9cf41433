"""How training went: curves with bands, and where each arm ends between emotion and intelligibility."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.figure_style import ARMS, NARROW, OTHER, WIDE, drawable, figure_of, percent, save, spread
from ablations.records import Record
from ablations.statistics import t_interval

if TYPE_CHECKING:
    import pandas as pd

SHOWN = ("diffro", "ls", "eam", "adv", "rrpo", "oracle")
PANELS = (
    ("proxy_accuracy", "proxy accuracy", True),
    ("val_accuracy", "gold (`val`) accuracy", True),
    ("val_hack_rate", "hack rate (`val`)", True),
    ("kl_token", "KL (nats a token)", False),
    ("length", "length (tokens)", False),
    ("grad_norm", "gradient norm", False),
)
WINDOW = 3
"""Looks in the running mean: each look is one batch."""
CURVES = (
    "Training roll-outs, judged every few steps: mean over seeds of a running mean over three looks, band: 95 % "
    "t-interval over seeds "
    "at each look (pointwise). `val` is the judge for curves; the `test` judge hears only the stored checkpoints."
)
PARETO = (
    "Gold emotion against intelligibility (1 - phone error rate of the judge's recogniser) at the last checkpoint: "
    "mean over seeds with "
    "95 % t-intervals. Up and right is better. Intelligibility stands where naturalness would: no measure of "
    "naturalness is in this report."
)


def training(records: Sequence[Record], folder: Path) -> list[Path]:
    """``training.pdf`` and ``.png``; nothing without curves."""
    arms = {arm: [r for r in records if r.label == arm and len(r.curves) > 1] for arm in SHOWN}
    arms = {arm: own for arm, own in arms.items() if own}
    there = {name for own in arms.values() for r in own for name in r.curves.columns}
    panels = [panel for panel in PANELS if panel[0] in there]
    if not panels:
        return []
    lines = math.ceil(len(panels) / 3)
    with figure_of(WIDE, 0.4 + 1.55 * lines, lines, min(3, len(panels)), sharex=True) as (figure, axes):
        for axis, (name, title, share) in zip(axes, panels, strict=False):
            ends = []
            for arm, own in arms.items():
                table = _band([r.curves.set_index("step")[name].dropna() for r in own if name in r.curves.columns])
                if table.empty:
                    continue
                colour, dashes, _ = ARMS.get(arm, OTHER)
                if int(table["n"].min()) > 2:
                    axis.fill_between(table.index, table["low"], table["high"], color=colour, alpha=0.12, lw=0)
                axis.plot(table.index, table["mean"], color=colour, ls=dashes, lw=1.1)
                ends.append((arm, colour, float(table.index[-1]), float(table["mean"].iloc[-1])))
            low, high = axis.get_ylim()
            places = spread([end[3] for end in ends], 0.085 * (high - low))
            for (arm, colour, x, _), y in zip(ends, places, strict=True):
                axis.annotate(
                    arm, (x, y), xytext=(3, 0), textcoords="offset points", color=colour, va="center", fontsize=6
                )
            axis.set_xlim(right=1.24 * max(end[2] for end in ends))
            axis.set_title(title, loc="left", pad=3)
            if share:
                axis.yaxis.set_major_formatter(percent)
        for axis in axes[len(panels) :]:
            axis.remove()
        figure.supxlabel("step", fontsize=7.5)
        return save(figure, folder, "training")


def _band(seeds: Sequence[pd.Series]) -> pd.DataFrame:
    import pandas as pd

    smooth = [s.rolling(WINDOW, min_periods=1).mean() for s in seeds]
    if not smooth:
        return pd.DataFrame()
    together = pd.concat(smooth, axis=1).dropna()
    bands = [t_interval(row) for row in together.to_numpy()]
    return pd.DataFrame(bands, index=together.index)


def pareto(records: Sequence[Record], folder: Path) -> list[Path]:
    """``pareto.pdf`` and ``.png``; nothing without both measures."""
    found = []
    for arm in dict.fromkeys(r.label for r in records):
        own = [r.points for r in records if r.label == arm]
        own = [points for points in own if {"test_accuracy", "phone_error_rate"} <= set(points.columns)]
        x = t_interval([float(points["test_accuracy"].iloc[-1]) for points in own])
        y = t_interval([1 - float(points["phone_error_rate"].iloc[-1]) for points in own])
        if x.n:
            found.append((arm, x, y))
    if not found:
        return []
    with figure_of(NARROW, 2.9) as (figure, (axis,)):
        for arm, x, y in found:
            colour, _, marker = ARMS.get(arm, OTHER)
            if drawable(x):
                axis.plot([x.low, x.high], [y.mean] * 2, color=colour, lw=0.6, alpha=0.7)
                axis.plot([x.mean] * 2, [y.low, y.high], color=colour, lw=0.6, alpha=0.7)
            axis.plot(x.mean, y.mean, marker, color=colour, ms=4.5)
        low, high = axis.get_ylim()
        right = max(x.high if drawable(x) else x.mean for _, x, _ in found)
        left = axis.get_xlim()[0]
        edge = right + 0.08 * (right - left)
        for (arm, x, y), place in zip(found, spread([y.mean for _, _, y in found], 0.062 * (high - low)), strict=True):
            colour = ARMS.get(arm, OTHER)[0]
            axis.annotate(
                arm,
                (x.mean, y.mean),
                xytext=(edge, place),
                textcoords="data",
                color=colour,
                fontsize=6,
                va="center",
                arrowprops={"arrowstyle": "-", "lw": 0.3, "color": "0.7", "shrinkA": 0, "shrinkB": 3},
            )
        axis.set_xlim(left, edge + 0.42 * (right - left))
        axis.xaxis.set_major_formatter(percent)
        axis.yaxis.set_major_formatter(percent)
        axis.set_xlabel("gold accuracy of the target emotion")
        axis.set_ylabel("intelligibility (1 - phone error rate)")
        axis.grid(lw=0.3, color="0.92")
        axis.set_axisbelow(True)
        return save(figure, folder, "pareto")
