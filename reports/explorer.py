"""Data of the page's interactive chart: every outcome at the checkpoints of every seed, read by ``page.js``.

The reader's choices (outcome, axis, arms) change what is drawn, never a number. The chart starts with gold and proxy; in print,
the static figure replaces it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ablations.outcomes import Outcome, shown
from ablations.rendering.figure_style import pick, style_of
from ablations.tracking.records import Record
from reports.loading import Selection
from rrpo.arms import BASE, RRPO

AXES = {"sqrt_kl": "√KL to the SFT policy, √nats a token", "step": "updates"}
"""Column of the points -> label of the horizontal axis."""
GOODHART = ("gold", "proxy")
"""Outcomes drawn together: where they diverge, the proxy is over-optimized."""
DASHED = "5 4"
"""Stroke pattern of the second one."""
DIGITS = 4
"""Number of decimals kept, which is finer than a pixel."""


def data(selection: Selection) -> dict[str, Any]:
    """Return axes, outcomes, and arms with the curves of their seeds; no arms if no policy was optimized."""
    moved = [
        record for record in selection.records if len(record.points) > 1 and set(AXES) <= set(record.points.columns)
    ]
    outcomes = [o for o in shown(selection.records) if o.curve and any(np.isfinite(_curve(o, r)).any() for r in moved)]
    arms = [arm for arm in selection.arms if any(record.label == arm for record in moved)]
    preselected = pick(arms, (BASE, RRPO), 2)
    return {
        "axes": [{"name": name, "label": label} for name, label in AXES.items()],
        "outcomes": _choices(outcomes),
        "arms": [
            {
                "label": arm,
                "shown": arm in preselected,
                "colour": _colour(style_of(arm)[0]),
                "dash": _dash(style_of(arm)[1]),
                "runs": [_run(record, outcomes) for record in moved if record.label == arm],
            }
            for arm in arms
        ],
    }


def _choices(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Return the options of the menu: gold together with proxy if both are measured, then every outcome alone."""
    choices = [
        {
            "label": outcome.heading,
            "percent": outcome.unit in ("percent", "gain"),
            "parts": [{"name": outcome.name, "label": outcome.label, "dash": None}],
        }
        for outcome in outcomes
    ]
    by_name = {outcome.name: outcome for outcome in outcomes}
    if not set(GOODHART) <= by_name.keys():
        return choices
    dashes = ("", DASHED)
    lines = [{"name": n, "label": by_name[n].label, "dash": d} for n, d in zip(GOODHART, dashes, strict=True)]
    return [{"label": "gold (solid) and proxy (dashed), %", "percent": True, "parts": lines}, *choices]


def _run(record: Record, outcomes: list[Outcome]) -> dict[str, Any]:
    axes = {name: _rounded(record.points[name].to_numpy(float)) for name in AXES}
    return {"seed": record.seed, "x": axes, "y": {o.name: _rounded(_curve(o, record)) for o in outcomes}}


def _curve(outcome: Outcome, record: Record) -> np.ndarray:
    assert outcome.curve is not None
    return outcome.curve(record)


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
