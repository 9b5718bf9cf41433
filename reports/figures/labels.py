"""Place labels near the ends of lines, inside the panel and without overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def beside(axis: Axes, wanted: Sequence[float], share: float) -> list[float]:
    """Return heights near the ``wanted`` ones, in the same order, ``share`` of the panel apart (less if they do not fit)."""
    low, high = axis.get_ylim()
    gap = (high - low) * min(share, 1 / max(1, len(wanted)))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places, ceiling, floor = list(wanted), high - gap / 2, low + gap / 2
    for i in reversed(order):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    for i in order:
        places[i] = max(places[i], floor)
        floor = places[i] + gap
    return places
