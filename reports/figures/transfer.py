"""Figure of the cross-RM transfer matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ablations.rendering.figure_style import WIDE, figure_of, points, save


def transfer(arms: Sequence[str], gained: np.ndarray, folder: Path) -> list[Path]:
    """Draw ``transfer.pdf`` and ``.png`` of ``gained [arm, judge]`` (fractions); nothing below two arms or without seeds."""
    if len(arms) < 2 or not gained.size:
        return []
    size = min(WIDE, 1.4 + 0.38 * len(arms))
    with figure_of(size + 0.6, size) as (figure, (axis,)):
        limit = max(float(np.abs(gained).max()), 0.01)
        image = axis.imshow(gained, vmin=-limit, vmax=limit, cmap="RdBu_r", aspect="equal")
        for (i, k), value in np.ndenumerate(gained):
            colour = "white" if abs(value) > 0.6 * limit else "black"
            weight = "bold" if i == k else "normal"
            axis.text(k, i, f"{100 * value:+.0f}", ha="center", va="center", fontsize=6, color=colour, weight=weight)
        axis.set_xticks(range(len(arms)), arms, rotation=90)
        axis.set_yticks(range(len(arms)), arms)
        axis.tick_params(length=0)
        axis.set(xlabel="reward model of", ylabel="samples of")
        bar = figure.colorbar(image, ax=axis, shrink=0.7)
        bar.ax.yaxis.set_major_formatter(points)
        bar.set_label("gain over SFT, points")
        return save(figure, folder, "transfer")
