"""The interactive chart of the page: every outcome over the checkpoints of every seed, as data for ``page.js``.

What the reader chooses there (outcome, axis, arms) changes what is drawn, never a number. The first choice is gold beside the
proxy; on paper the static figure of the same curves stands for it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ablations.outcomes import Outcome, shown
from ablations.rendering.figure_style import look, pick
from ablations.tracking.records import Record
from reports.loading import Selection
from rrpo.arms import BASE, RRPO

AXES = {"sqrt_kl": "√KL to the SFT policy, √nats a token", "step": "updates"}
"""Columns of the points that can be the horizontal axis."""
GOODHART = ("gold", "proxy")
"""Outcomes that are drawn together: where they part, the proxy is over-optimised."""
DASHED = "5 4"
"""Stroke of the second of them."""
DIGITS = 4
"""Decimals kept: finer than a pixel."""


def data(selection: Selection) -> dict[str, Any]:
    """Axes, outcomes and arms with their seeds' curves; no arms where no policy has moved."""
    moved = [
        record for record in selection.records if len(record.points) > 1 and set(AXES) <= set(record.points.columns)
    ]
    outcomes = [o for o in shown(selection.records) if o.curve and any(np.isfinite(_curve(o, r)).any() for r in moved)]
    arms = [arm for arm in selection.arms if any(record.label == arm for record in moved)]
    chosen = pick(arms, (BASE, RRPO), 2)
    return {
        "axes": [{"name": name, "label": label} for name, label in AXES.items()],
        "outcomes": _choices(outcomes),
        "arms": [
            {
                "label": arm,
                "shown": arm in chosen,
                "colour": _colour(look(arm)[0]),
                "dash": _dash(look(arm)[1]),
                "runs": [_run(record, outcomes) for record in moved if record.label == arm],
            }
            for arm in arms
        ],
    }


def _choices(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """What can be drawn: gold beside the proxy where both are there, then every outcome by itself in its arm's line."""
    single = [
        {
            "label": o.heading,
            "percent": o.unit in ("percent", "gain"),
            "parts": [{"name": o.name, "label": o.label, "dash": None}],
        }
        for o in outcomes
    ]
    named = {o.name: o for o in outcomes}
    if not set(GOODHART) <= named.keys():
        return single
    dashes = ("", DASHED)
    lines = [{"name": n, "label": named[n].label, "dash": d} for n, d in zip(GOODHART, dashes, strict=True)]
    return [{"label": "gold (solid) and proxy (dashed), %", "percent": True, "parts": lines}, *single]


def _run(record: Record, outcomes: list[Outcome]) -> dict[str, Any]:
    axes = {name: _rounded(record.points[name].to_numpy(float)) for name in AXES}
    return {"seed": record.seed, "x": axes, "y": {o.name: _rounded(_curve(o, record)) for o in outcomes}}


def _curve(outcome: Outcome, record: Record) -> np.ndarray:
    assert outcome.curve is not None
    return outcome.curve(record)


def _rounded(values: np.ndarray) -> list[float | None]:
    return [round(float(value), DIGITS) if math.isfinite(value) else None for value in values]


def _colour(name: str) -> str:
    """Matplotlib's black and greys follow the page's light or dark text."""
    if name == "black":
        return "currentColor"
    return name if name.startswith("#") else "var(--soft)"


def _dash(line: Any) -> str:
    """A matplotlib line style as SVG's ``stroke-dasharray``."""
    named = {"-": "", "--": "6 3", ":": "2 2", "-.": "6 2 2 2"}
    return named[line] if isinstance(line, str) else " ".join(f"{2 * length:g}" for length in line[1])
