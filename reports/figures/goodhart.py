"""Figure of over-optimization: gold and proxy accuracy against sqrt(KL), one panel per arm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.judges import gold
from ablations.rendering.figure_style import BLUE, GREEN, GREY, VERMILION, WIDE, figure_of, percent, save
from ablations.stats.statistics import mean_path
from ablations.tracking.records import Record
from rrpo.arms import BASE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

REFERENCES = {BASE: (GREY, ":"), "best_of_64": (GREEN, "-."), "best_of_16": (GREEN, "-.")}
"""Arm whose mean gold is drawn in every other panel -> color and line style."""


def measures() -> list[tuple[str, str, str, str]]:
    """Return the columns of the points with color, line style and name."""
    return [(gold().accuracy, BLUE, "-", "gold"), ("proxy_accuracy", VERMILION, "--", "proxy")]


def goodhart(records: Sequence[Record], out: Path) -> list[Path]:
    """Draw ``goodhart.pdf`` and ``.png``; nothing if no arm was optimized. The same records give the same bytes.

    Thin lines are seeds, thick lines their mean over checkpoints; every other panel also has the mean gold of `REFERENCES`.
    """
    arms: dict[str, list[Record]] = {}
    for record in records:
        if {"sqrt_kl", *(name for name, *_ in measures())} <= set(record.points.columns) and len(record.points) > 1:
            arms.setdefault(record.label, []).append(record)
    if not arms:
        return []
    columns = min(4, len(arms)) if len(arms) != 5 else 3
    lines = math.ceil(len(arms) / columns)
    height = 0.75 + 1.45 * max(lines, 1 if columns > 1 else 2)
    with figure_of(WIDE, height, lines, columns, sharex=True, sharey=True) as (figure, axes):
        references = {label: arms[label] for label in REFERENCES if label in arms}
        drawn = [_panel(axis, label, runs, references) for axis, (label, runs) in zip(axes, arms.items(), strict=False)]
        for axis in axes[len(arms) :]:
            axis.remove()
        for axis in axes[max(0, len(arms) - columns) : len(arms)]:
            axis.tick_params(labelbottom=True)
        limit = max(float(r.points["sqrt_kl"].max()) for runs in arms.values() for r in runs)
        lowest = min(float(r.points[name].min()) for runs in arms.values() for r in runs for name, *_ in measures())
        axes[0].set(xlim=(0, 1.22 * limit), ylim=(max(0.0, math.floor(10 * lowest - 0.5) / 10), 1.02))
        axes[0].yaxis.set_major_formatter(percent)
        figure.supxlabel("√KL to the SFT policy (√nats per token)", fontsize=7.5)
        figure.supylabel("accuracy of the target emotion", fontsize=7.5)
        if by_label := {line.get_label(): line for line in itertools.chain(*drawn)}:
            handles = list(by_label.values())
            figure.legend(handles=handles, loc="outside upper right", frameon=False, fontsize=6.5, ncols=len(handles))
        return save(figure, out, "goodhart")


def _panel(axis: Axes, label: str, runs: Sequence[Record], references: Mapping[str, Sequence[Record]]) -> list[Line2D]:
    """Draw one arm; return the lines of the other arms' gold."""
    reference_lines: list[Line2D] = []
    for name, records in references.items():
        if name != label:
            d, y = mean_path([_path(record, gold().accuracy) for record in records])
            colour, dashes = REFERENCES[name]
            reference_lines += axis.plot(d, y, color=colour, lw=1.0, ls=dashes, zorder=1, label=f"gold of {name}")
    ends = []
    for name, colour, dashes, text in measures():
        paths = [_path(record, name) for record in runs]
        for d, y in paths:
            axis.plot(d, y, color=colour, lw=0.5, ls=dashes, alpha=0.35, zorder=2)
        d, y = mean_path(paths)
        axis.plot(d, y, color=colour, lw=1.8, ls=dashes, zorder=3)
        ends.append((float(d[-1]), float(y[-1]), colour, text))
    _label_ends(axis, ends)
    axis.set_title(f"{label} (n = {len(runs)})", loc="left", pad=3)
    axis.grid(axis="y", lw=0.3, color="0.9")
    axis.set_axisbelow(True)
    return reference_lines


def _label_ends(axis: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Label the ends of the mean lines, moving labels apart where they would overlap."""
    gap = 0.11
    (x1, y1, c1, w1), (x2, y2, c2, w2) = sorted(ends, key=lambda end: end[1])
    push = max(0.0, gap - (y2 - y1)) / 2
    for x, y, colour, word in ((x1, y1 - push, c1, w1), (x2, y2 + push, c2, w2)):
        axis.annotate(word, (x, y), xytext=(3, 0), textcoords="offset points", color=colour, va="center", fontsize=6.5)


def _path(record: Record, name: str) -> tuple[Any, Any]:
    return record.points["sqrt_kl"].to_numpy(), record.points[name].to_numpy()


def caption() -> str:
    """Return the caption."""
    return (
        f"Accuracy of the target emotion by gold (solid, {gold().label}) and by the proxy (dashed, the arm's own "
        "reward model) against sqrt(KL per token) to the SFT policy, at stored checkpoints. Thin: seeds; thick: mean "
        f"over seeds at each checkpoint. Dotted gray: mean gold of {BASE}; dash-dotted green: mean gold of best-of-n "
        "samples of SFT, n = 1, 2, 4, ... Arms without optimization (SFT) are not drawn."
    )
