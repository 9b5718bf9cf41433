"""The Matplotlib style of all figures, and functions that save them as reproducible files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.components import COMPONENTS, singles
from ablations.grids import split_label
from ablations.stats.statistics import Interval
from rrpo.arms import BASE, RRPO, name_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NARROW, WIDE = 3.5, 7.16
"""Widths in inches: one and two columns of a typical paper."""
DPI = 200
"""Pixels per inch of the PNG files."""
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
"""Colors of Okabe and Ito's palette. Line styles and markers also distinguish the arms, for printing in gray."""
GREY = "0.55"
Style = tuple[str, Any, str]
"""(color, line style, marker)."""
HIGHLIGHTED: dict[str, Style] = {
    "sft": ("0.35", (0, (1, 1)), "o"),
    "pretrained": ("0.6", (0, (5, 1)), "v"),
    BASE: ("black", "-", "s"),
    RRPO: (VERMILION, "-", "o"),
    "oracle": (BLUE, (0, (3, 1, 1, 1)), "P"),
    "placebo": (PURPLE, (0, (5, 1)), "X"),
}
"""Styles of arms that figures highlight, in addition to single-component arms; all other arms are gray."""
COMPONENT_STYLES: tuple[Style, ...] = (
    ("#56B4E9", "--", "^"),
    (GREEN, "-.", "D"),
    ("#E69F00", ":", "v"),
    (PURPLE, "--", "s"),
    ("#F0E442", "-.", "P"),
    ("#882255", ":", "X"),
)
"""Styles of the single-component arms, in the order of the components."""
OTHER: Style = (GREY, "-", "o")


def style_of(arm: str) -> Style:
    """Return an arm's color, line style and marker; ``diffro@shortcut0.5`` has that of ``diffro``."""
    styles = chain(COMPONENT_STYLES, cycle(COMPONENT_STYLES[3:]))  # only the paper's three have one of their own
    of_components = {name_of([c.name]): style for c, style in zip(COMPONENTS, styles, strict=False)}
    return (HIGHLIGHTED | of_components).get(split_label(arm)[0], OTHER)


def preferred() -> list[str]:
    """Return the arms that a crowded figure shows."""
    return ["sft", *singles(), "oracle"]


def pick(arms: Sequence[str], selection: Sequence[str], limit: int = 7) -> list[str]:
    """Return the ``selection`` arms that are available, or the first ``limit`` arms if none are."""
    return [arm for arm in selection if arm in arms] or list(arms)[:limit]


STYLE: dict[str, Any] = {
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}


def percent(value: float, position: float) -> str:
    """Format the tick label of a fraction, with enough digits to show the tick's actual value."""
    return f"{100 * value:.4g}%"


def points(value: float, position: float) -> str:
    """Format the tick label of a difference of fractions, with enough digits to show the tick's actual value."""
    return f"{100 * value:+.4g}" if abs(value) > 1e-9 else "0"


def drawable(mean: Interval) -> bool:
    """Return whether to draw an interval: that of two seeds is so wide that it hides everything else (tables still give it)."""
    return mean.n > 2


@contextmanager
def figure_of(
    width: float, height: float, lines: int = 1, columns: int = 1, **options: Any
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Create a figure with ``lines x columns`` axes in `STYLE`, and close it at the end."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with mpl.rc_context(STYLE):  # type: ignore[arg-type]
        figure, grid = plt.subplots(
            lines, columns, figsize=(width, height), squeeze=False, layout="constrained", **options
        )
        try:
            yield figure, list(grid.flat)
        finally:
            plt.close(figure)


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Save ``<name>.pdf`` and ``<name>.png`` with the same layout, and without dates or versions for reproducibility."""
    paths = [folder / f"{name}.pdf", folder / f"{name}.png"]
    figure.savefig(paths[0], metadata={"CreationDate": None, "Producer": None, "Creator": None})
    figure.set_layout_engine("none")  # keep the layout of the PDF
    figure.savefig(paths[1], dpi=DPI, metadata={"Software": None})
    return paths


def width_of(picture: Path) -> float:
    """Return the width in inches of a PNG file that `save` wrote."""
    from PIL import Image

    with Image.open(picture) as image:
        return image.width / DPI
