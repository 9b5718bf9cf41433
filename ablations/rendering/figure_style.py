"""Matplotlib style of all figures, and saving them as files that are the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
"""Inches: one and two columns of the usual paper."""
DPI = 200
"""Pixels an inch of the PNG files."""
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
"""Okabe and Ito's palette, told apart in grey by line style or marker as well."""
GREY = "0.55"
FRAMES: dict[str, tuple[str, Any, str]] = {
    "sft": ("0.35", (0, (1, 1)), "o"),
    "pretrained": ("0.6", (0, (5, 1)), "v"),
    BASE: ("black", "-", "s"),
    RRPO: (VERMILION, "-", "o"),
    "oracle": (BLUE, (0, (3, 1, 1, 1)), "P"),
    "placebo": (PURPLE, (0, (5, 1)), "X"),
}
"""Colour, line and marker of the arms that figures single out beside the components' own; all others are grey."""
OTHER = (GREY, "-", "o")


def look(arm: str) -> tuple[str, Any, str]:
    """An arm's colour, line and marker; ``diffro@shortcut0.5`` looks like ``diffro``."""
    own = {name_of([component.name]): component.look for component in COMPONENTS}
    return (FRAMES | own).get(split_label(arm)[0], OTHER)


def preferred() -> list[str]:
    """The arms that a crowded figure shows."""
    return ["sft", *singles(), "oracle"]


def pick(arms: Sequence[str], wanted: Sequence[str], most: int = 7) -> list[str]:
    """The arms shown: the ``wanted`` ones that are there, or else the first ``most``."""
    return [arm for arm in wanted if arm in arms] or list(arms)[:most]


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
    """Tick labels of a fraction; never rounded to what the tick is not."""
    return f"{100 * value:.4g}%"


def points(value: float, position: float) -> str:
    """Tick labels of a difference of fractions; never rounded to what the tick is not."""
    return f"{100 * value:+.4g}" if abs(value) > 1e-9 else "0"


def drawable(mean: Interval) -> bool:
    """Whether an interval is drawn: from two seeds it is so wide that it hides everything else; tables give it."""
    return mean.n > 2


@contextmanager
def figure_of(
    width: float, height: float, lines: int = 1, columns: int = 1, **options: Any
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of ``lines x columns`` axes in the house style, closed at the end."""
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
    """``<name>.pdf`` and ``.png`` of one layout, without dates or versions."""
    paths = [folder / f"{name}.pdf", folder / f"{name}.png"]
    figure.savefig(paths[0], metadata={"CreationDate": None, "Producer": None, "Creator": None})
    figure.set_layout_engine("none")  # as it was laid out just now
    figure.savefig(paths[1], dpi=DPI, metadata={"Software": None})
    return paths


def width_of(picture: Path) -> float:
    """Inches, of a PNG file that `save` wrote."""
    from PIL import Image

    with Image.open(picture) as image:
        return image.width / DPI


def spread(wanted: list[float], gap: float) -> list[float]:
    """Positions as near the wanted ones as a smallest gap allows, in the same order: labels that do not overlap."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [wanted[i] for i in order]
    for _ in range(100):
        moved = False
        for i in range(1, len(placed)):
            lack = gap - (placed[i] - placed[i - 1])
            if lack > 1e-9:
                placed[i - 1] -= lack / 2
                placed[i] += lack / 2
                moved = True
        if not moved:
            break
    result = [0.0] * len(wanted)
    for position, i in zip(placed, order, strict=True):
        result[i] = position
    return result
