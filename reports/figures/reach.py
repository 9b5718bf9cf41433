"""Figure of every conclusion in every setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ablations.rendering.figure_style import BLUE, GREEN, VERMILION, WIDE, drawable, figure_of, points, save
from ablations.stats.family import MARGIN, margin_text, primary
from reports.sensitivity import Finding

MARKS = {"better": ("o", BLUE), "worse": ("s", VERMILION), "equivalent": ("D", GREEN)}


def caption() -> str:
    """Return the caption."""
    return (
        f"Difference in {primary().label} for each conclusion and setting: mean with simultaneous interval (drawn "
        "from three seeds on; all are in the tables). *: default setting; the dashed line marks its mean. Filled "
        "markers show verdicts: blue disc better, red square worse, green diamond equivalent; hollow: undecided, "
        f"interim or no verdict. Gray band: equivalence margin of {margin_text()}."
    )


def reach(findings: Sequence[Finding], folder: Path) -> list[Path]:
    """Draw ``reach.pdf`` and ``.png``; nothing below two settings."""
    settings = list(dict.fromkeys(finding.setting.name for finding in findings))
    names = list(dict.fromkeys(finding.name for finding in findings))
    if len(settings) < 2:
        return []
    from matplotlib.ticker import MaxNLocator

    with figure_of(WIDE, 0.7 + 0.17 * len(settings), 1, len(names), sharey=True) as (figure, axes):
        for axis, name in zip(axes, names, strict=True):
            axis.axvspan(-MARGIN, MARGIN, color="0.93", lw=0)
            axis.axvline(0, color="0.4", lw=0.6)
            for finding in (finding for finding in findings if finding.name == name):
                y, mean = settings.index(finding.setting.name), finding.interval
                marker, colour = MARKS.get(finding.word, ("o", "0.35"))
                if drawable(mean):
                    axis.plot([mean.low, mean.high], [y, y], color=colour, lw=1.1, solid_capstyle="butt")
                filled = colour if finding.word in MARKS else "white"
                axis.plot(mean.mean, y, marker, ms=4, mfc=filled, mec=colour)
                if finding.setting.own:
                    axis.axvline(mean.mean, color=colour, lw=0.6, ls=(0, (4, 2)))
            axis.set_title(name, loc="left", pad=3)
            axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            axis.xaxis.set_major_formatter(points)
            axis.tick_params(axis="y", length=0)
        default_settings = {finding.setting.name for finding in findings if finding.setting.own}
        axes[0].set_yticks(
            range(len(settings)),
            [f"{setting.replace('_', ' ')}{' *' if setting in default_settings else ''}" for setting in settings],
            fontsize=6,
        )
        axes[0].set_ylim(len(settings) - 0.5, -0.5)  # the grid's order from top to bottom, no marker on the frame
        figure.supxlabel(f"difference of {primary().label} (points)", fontsize=7.5)
        return save(figure, folder, "reach")
