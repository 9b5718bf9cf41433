"""Data of the page's interactive chart: every outcome at the checkpoints of every seed, read by ``page.js``.

The reader's choices (outcome, axis, arms) change what is drawn, never a number. The chart starts with the primary outcome and the
proxy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ablations.outcomes import Outcome, shown
from ablations.rendering.figure_style import BLUE, GREEN, OTHER, PURPLE, VERMILION, pick, style_of
from ablations.stats.family import PRIMARY_OUTCOME
from ablations.tracking.records import Record
from reports.loading import Selection
from rrpo.arms import BASE, RRPO

AXES = {"sqrt_kl": "√KL to the SFT policy, √nats a token", "step": "updates"}
"""Column of the points -> label of the horizontal axis."""
PAIRS = ((PRIMARY_OUTCOME, "proxy"), ("gold", "proxy"))
"""Outcomes drawn together: where they diverge, the proxy is over-optimized."""
DASHED = "5 4"
"""Stroke pattern of the second one."""
COLORS = ("var(--soft)", BLUE, GREEN, PURPLE, "#56B4E9", "#E69F00", "#882255", VERMILION)
"""Colors of arms without one of their own."""
DIGITS = 4
"""Number of decimals kept, which is finer than a pixel."""


def data(selection: Selection) -> dict[str, Any]:
    """Return axes, outcomes, and arms with the curves of their seeds; no arms if no policy was optimized."""
    moved = [
        record for record in selection.records if len(record.points) > 1 and set(AXES) <= set(record.points.columns)
    ]
    outcomes = [o for o in shown(selection.records) if any(np.isfinite(o.curve(r)).any() for r in moved)]
    arms = [arm for arm in selection.arms if any(record.label == arm for record in moved)]
    preselected, styles = pick(arms, (BASE, RRPO), 2), _styles(arms)
    return {
        "axes": [{"name": name, "label": label} for name, label in AXES.items()],
        "outcomes": _choices(outcomes),
        "arms": [
            {
                "label": arm,
                "shown": arm in preselected,
                "colour": styles[arm][0],
                "dash": styles[arm][1],
                "runs": [_run(record, outcomes) for record in moved if record.label == arm],
            }
            for arm in arms
        ],
    }


def _styles(arms: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return arm -> color and dashes. Arms that figures do not highlight, and would draw alike, get those that are left."""
    own = {arm: style_of(arm) for arm in arms if style_of(arm) != OTHER}
    styles = {arm: (_colour(color), _dash(line)) for arm, (color, line, _) in own.items()}
    dashes = [_dash(line) for line in ("--", "-.", ":", "-")]
    left = [pair for pair in itertools.product(COLORS, dashes) if pair not in styles.values()]
    others = [arm for arm in arms if arm not in styles]
    return styles | dict(zip(others, itertools.cycle(left), strict=False))


def _choices(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Return the options of the menu: the pairs of which both are measured, then every outcome alone."""

    def choice(label: str, *parts: Outcome) -> dict[str, Any]:
        dashes = [None] if len(parts) == 1 else ["", DASHED]
        lines = [{"name": o.name, "label": o.label, "dash": dash} for o, dash in zip(parts, dashes, strict=True)]
        return {"label": label, "percent": parts[0].unit in ("percent", "gain"), "parts": lines}

    by_name = {outcome.name: outcome for outcome in outcomes}
    pairs = [(by_name[one], by_name[other]) for one, other in PAIRS if {one, other} <= by_name.keys()]
    return [
        *(choice(f"{one.label} (solid) and {other.label} (dashed), %", one, other) for one, other in pairs),
        *(choice(outcome.heading, outcome) for outcome in outcomes),
    ]


def _run(record: Record, outcomes: list[Outcome]) -> dict[str, Any]:
    axes = {name: _rounded(record.points[name].to_numpy(float)) for name in AXES}
    return {"seed": record.seed, "x": axes, "y": {o.name: _rounded(o.curve(record)) for o in outcomes}}


def _rounded(values: np.ndarray) -> list[float | None]:
    return [round(float(value), DIGITS) if math.isfinite(value) else None for value in values]


def _colour(name: str) -> str:
    """Return a CSS color; Matplotlib's black and greys follow the page's light or dark theme."""
    if name == "black":
        return "currentColor"
    return name if name.startswith("#") else "var(--soft)"


def _dash(line: Any) -> str:
    """Return a Matplotlib line style as SVG's ``stroke-dasharray``."""
    patterns = {"-": "", "--": "6 3", ":": "2 2", "-.": "6 2 2 2"}
    return patterns[line] if isinstance(line, str) else " ".join(f"{2 * length:g}" for length in line[1])
