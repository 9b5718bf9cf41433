"""Figures of curves: proxy, gold and clean success over KL, training with bands, and the final trade-off between emotion and
intelligibility."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablations.judges import gold, tuning
from ablations.outcomes import Outcome, accuracy, find, measured
from ablations.rendering import figure_style as style
from ablations.stats.family import primary
from ablations.stats.statistics import mean_path, t_interval
from ablations.tracking.records import Record
from rrpo.arms import BASE, RRPO

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

REFERENCES = {BASE: (style.GREY, ":"), "best_of_64": (style.GREEN, "-."), "best_of_16": (style.GREEN, "-.")}
"""Arm whose mean clean success is drawn in every other panel of the figure `goodhart` -> color and line style."""
BANDED = (BASE, RRPO)
"""Arms with a band; more bands would hide one another."""
TITLE = 180
"""Maximum width of a panel's title: characters times size in points."""
WINDOW = 3
"""Number of batches in the running mean."""
LEADER = {"arrowstyle": "-", "lw": 0.3, "color": "0.7", "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5), "zorder": 0}
"""Line from a label to its point."""


def measures() -> list[tuple[Outcome, str, str, str]]:
    """Return the outcomes of the figure `goodhart` with color, line style and label."""
    return [
        (find("proxy_accuracy"), style.VERMILION, "--", "proxy"),
        (accuracy(gold()), style.BLUE, "-", "gold"),
        (primary(), "black", "-", primary().label),
    ]


def goodhart(records: Sequence[Record], out: Path) -> list[Path]:
    """Draw ``goodhart.pdf`` and ``.png``; nothing if no arm was optimized. The same records give the same bytes.

    Thin lines are seeds, thick lines their mean over checkpoints; every other panel also has the mean clean success of
    `REFERENCES`.
    """
    arms: dict[str, list[Record]] = {}
    for record in records:
        if {"sqrt_kl", "proxy_accuracy", gold().accuracy} <= set(record.points.columns) and len(record.points) > 1:
            arms.setdefault(record.label, []).append(record)
    if not arms:
        return []
    columns = min(4, len(arms)) if len(arms) != 5 else 3
    lines = math.ceil(len(arms) / columns)
    height = 0.75 + 1.45 * max(lines, 1 if columns > 1 else 2)
    with style.figure_of(style.WIDE, height, lines, columns, sharex=True, sharey=True) as (figure, axes):
        limit = max(float(r.points["sqrt_kl"].max()) for runs in arms.values() for r in runs)
        axes[0].set(xlim=(0, 1.05 * limit), ylim=(0, 1.02))
        references = {label: arms[label] for label in REFERENCES if label in arms}
        drawn = [_panel(axis, label, runs, references) for axis, (label, runs) in zip(axes, arms.items(), strict=False)]
        for axis in axes[len(arms) :]:
            axis.remove()
        for axis in axes[max(0, len(arms) - columns) : len(arms)]:
            axis.tick_params(labelbottom=True)
        axes[0].yaxis.set_major_formatter(style.percent)
        figure.supxlabel("√KL to the SFT policy (√nats per token)", fontsize=7.5)
        figure.supylabel("share of the samples", fontsize=7.5)
        if by_label := {line.get_label(): line for line in itertools.chain(*drawn)}:
            handles = list(by_label.values())
            figure.legend(handles=handles, loc="outside upper right", frameon=False, fontsize=6.5, ncols=len(handles))
        return style.save(figure, out, "goodhart")


def _panel(axis: Axes, label: str, runs: Sequence[Record], references: Mapping[str, Sequence[Record]]) -> list[Line2D]:
    """Draw one arm; return the lines of the legend."""
    named: list[Line2D] = []
    for outcome, colour, dashes, text in measures():
        paths = [_path(record, outcome) for record in runs]
        for d, y in paths:
            axis.plot(d, y, color=colour, lw=0.4, ls=dashes, alpha=0.3, zorder=2)
        d, y = mean_path(paths)
        if np.isfinite(y).any():
            named += axis.plot(d, y, color=colour, lw=1.8, ls=dashes, zorder=3, label=text)
    for name, records in references.items():
        if name != label:
            d, y = mean_path([_path(record, primary()) for record in records])
            colour, dashes = REFERENCES[name]
            text = f"{primary().label} of {name}"
            named += axis.plot(d, y, color=colour, lw=1.0, ls=dashes, zorder=1, label=text)
    title = f"{label} (n = {len(runs)})"
    heading = axis.set_title(title, loc="left", pad=3)
    heading.set_fontsize(min(heading.get_fontsize(), TITLE / len(title)))
    axis.grid(axis="y", lw=0.3, color="0.9")
    axis.set_axisbelow(True)
    return named


def _path(record: Record, outcome: Outcome) -> tuple[Any, Any]:
    return record.points["sqrt_kl"].to_numpy(), outcome.curve(record)


def goodhart_caption(records: Sequence[Record]) -> str:
    """Return the caption."""
    present = {record.label for record in records}
    drawn = {
        f"dotted gray: mean {primary().label} of {BASE}": BASE in present,
        f"dash-dotted green: mean {primary().label} of best-of-n samples of SFT for n = 1, 2, 4 and so on": bool(
            present & REFERENCES.keys() - {BASE}
        ),
    }
    references = [text for text, is_drawn in drawn.items() if is_drawn]
    return (
        f"Accuracy of the target emotion by the proxy (dashed, the arm's own reward model) and by gold (blue, {gold().label}), "
        f"and {primary().label} (black), against the square root of the KL to the SFT policy. Shares are those of the prompts "
        "that all checkpoints have, the KL that of each checkpoint's own. Thin: seeds; thick: mean over seeds at each "
        f"checkpoint{''.join(f'; {text}' for text in references)}. Arms with a single checkpoint, such as SFT, are not drawn."
    )


def pareto_caption(records: Sequence[Record]) -> str:
    """Return the caption of the trade-off."""
    _, label, _ = _naturalness(records)
    return (
        f"{label[0].upper()}{label[1:]} against gold accuracy at the last checkpoint: mean over seeds with 95 % t-intervals "
        "(drawn from three seeds on). Upper right is best."
    )


def curves_caption() -> str:
    """Return the caption of the training curves."""
    return (
        f"Training roll-outs, evaluated every few steps: mean over seeds of a running mean over {WINDOW} evaluations. "
        "Bands (DiffRO and RRPO; the first two arms if the grid has neither): pointwise 95 % t-interval over seeds. "
        f"The {tuning().label} evaluates training roll-outs; the {gold().label} evaluates stored checkpoints only."
    )


def panels() -> list[tuple[str, str, bool]]:
    """Return, per panel, the column of the curves, its title, and whether it is a share."""
    judge = tuning()
    return [
        ("proxy_accuracy", "proxy accuracy", True),
        (judge.accuracy, f"accuracy ({judge.label})", True),
        (judge.hack_rate, f"hack rate ({judge.label})", True),
        ("kl_token", "KL (nats a token)", False),
        ("length", "length (tokens)", False),
        ("grad_norm", "gradient norm", False),
    ]


def shown(records: Sequence[Record]) -> list[str]:
    """Return the arms shown in the figure of training curves."""
    return style.pick(
        list(dict.fromkeys(record.label for record in records if len(record.curves) > 1)), style.preferred()
    )


def training(records: Sequence[Record], folder: Path) -> list[Path]:
    """Draw ``training.pdf`` and ``.png``; nothing without curves."""
    arms = {arm: [r for r in records if r.label == arm and len(r.curves) > 1] for arm in shown(records)}
    columns = {
        name
        for arm_records in arms.values()
        for r in arm_records
        for name in r.curves.columns
        if r.curves[name].notna().any()
    }
    shown_panels = [panel for panel in panels() if panel[0] in columns]
    if not shown_panels:
        return []
    lines, banded = math.ceil(len(shown_panels) / 3), style.pick(list(arms), BANDED, 2)
    with style.figure_of(style.WIDE, 0.4 + 1.55 * lines, lines, min(3, len(shown_panels)), sharex=True) as (
        figure,
        axes,
    ):
        for axis, (name, title, share) in zip(axes, shown_panels, strict=False):
            ends = []
            for arm, arm_records in arms.items():
                table = _band([r.curves.set_index("step")[name] for r in arm_records if name in r.curves.columns])
                if table.empty:
                    continue
                colour, dashes, _ = style.style_of(arm)
                if arm in banded and int(table["n"].min()) > 2:
                    axis.fill_between(table.index, table["low"], table["high"], color=colour, alpha=0.12, lw=0)
                axis.plot(table.index, table["mean"], color=colour, ls=dashes, lw=1.1)
                ends.append((arm, colour, dashes, float(table.index[-1]), float(table["mean"].iloc[-1])))
            if share:
                axis.set_ylim(max(0.0, axis.get_ylim()[0]), min(1.0, axis.get_ylim()[1]))
            last = max(x for _, _, _, x, _ in ends)
            heights = beside(axis, [end[-1] for end in ends], 0.085)
            for (arm, colour, dashes, x, y), height in zip(ends, heights, strict=True):
                axis.plot([x, 1.1 * last], [y, height], color=colour, ls=dashes, lw=0.6)
                axis.text(1.12 * last, height, arm, color=colour, va="center", fontsize=6)
            axis.set_xlim(right=1.42 * last)
            axis.set_xticks([tick for tick in axis.get_xticks() if 0 <= tick <= last])
            axis.set_title(title, loc="left", pad=3)
            if share:
                axis.yaxis.set_major_formatter(style.percent)
        for axis in axes[len(shown_panels) :]:
            axis.remove()
        figure.supxlabel("step", fontsize=7.5)
        return style.save(figure, folder, "training")


def _band(seeds: Sequence[pd.Series]) -> pd.DataFrame:
    import pandas as pd

    smooth = [s.dropna().rolling(WINDOW, min_periods=1).mean() for s in seeds]
    if not smooth:
        return pd.DataFrame()
    together = pd.concat(smooth, axis=1).dropna()
    bands = [t_interval(row) for row in together.to_numpy()]
    return pd.DataFrame(bands, index=together.index)


def beside(axis: Axes, targets: Sequence[float], share: float) -> list[float]:
    """Return heights for labels near the heights ``targets``, in the same order and without overlap.

    They are ``share`` of the panel apart, or less if they do not fit.
    """
    low, high = axis.get_ylim()
    gap = (high - low) * min(share, 1 / max(1, len(targets)))
    order = sorted(range(len(targets)), key=lambda i: targets[i])
    heights, ceiling, floor = list(targets), high - gap / 2, low + gap / 2
    for i in reversed(order):
        heights[i] = min(heights[i], ceiling)
        ceiling = heights[i] - gap
    for i in order:
        heights[i] = max(heights[i], floor)
        floor = heights[i] + gap
    return heights


def pareto(records: Sequence[Record], folder: Path) -> list[Path]:
    """Draw ``pareto.pdf`` and ``.png``; nothing unless both measures exist."""
    name, label, share = _naturalness(records)
    emotion, natural = accuracy(gold()).values(records), find(name).values(records)
    points = []
    for arm in dict.fromkeys(record.label for record in records):
        keys = [(record.label, record.seed) for record in records if record.label == arm]
        x = t_interval([emotion[key] for key in keys])
        y = t_interval([1 - natural[key] if share else natural[key] for key in keys])
        if x.n and y.n:
            points.append((arm, x, y))
    if not points:
        return []
    with style.figure_of(style.NARROW, 2.9) as (figure, (axis,)):
        for arm, x, y in points:
            colour, _, marker = style.style_of(arm)
            if style.drawable(x) and style.drawable(y):
                axis.plot([x.low, x.high], [y.mean] * 2, color=colour, lw=0.6, alpha=0.7)
                axis.plot([x.mean] * 2, [y.low, y.high], color=colour, lw=0.6, alpha=0.7)
            axis.plot(x.mean, y.mean, marker, color=colour, ms=4.5)
        right = max(x.high if style.drawable(x) else x.mean for _, x, _ in points)
        left = axis.get_xlim()[0]
        edge = right + 0.1 * (right - left)
        heights = beside(axis, [y.mean for _, _, y in points], 0.062)
        for (arm, x, y), height in zip(points, heights, strict=True):
            colour = style.style_of(arm)[0]
            axis.annotate(
                arm, (x.mean, y.mean), (edge, height), color=colour, fontsize=6, va="center", arrowprops=LEADER
            )
        axis.set_xlim(left, edge + 0.42 * (right - left))
        axis.xaxis.set_major_formatter(style.percent)
        axis.set_xticks([tick for tick in axis.get_xticks() if left <= tick <= edge])
        if share:
            axis.yaxis.set_major_formatter(style.percent)
        axis.set_xlabel("gold accuracy of the target emotion")
        axis.set_ylabel(label)
        axis.grid(lw=0.3, color="0.92")
        axis.set_axisbelow(True)
        return style.save(figure, folder, "pareto")


def _naturalness(records: Sequence[Record]) -> tuple[str, str, bool]:
    """Return the naturalness measure, its axis label, and whether to show one minus its value (a predicted MOS, or
    intelligibility)."""
    for name in ("dnsmos", "plcmos"):
        if measured(find(name), records):
            return name, f"predicted naturalness ({name.upper()})", False
    return "phone_error_rate", "intelligibility (1 - phone error rate)", True
