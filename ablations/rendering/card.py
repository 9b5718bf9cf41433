"""Render a world's validation report (the world card) as terminal table, Markdown, CSV and JSON; plot phonetic measures."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table as RichTable
from rich.text import Text

from ablations.rendering.figure_style import figure_of
from ablations.rendering.figure_style import save as save_figure
from ablations.rendering.sheet import Column, Sheet, as_csv, markdown_page
from rrpo.validation.lines import NOT_INSTALLED, Line, save

COLORS = {"FAIL": "red", "pass": "green"}
"""Verdict -> its color in the terminal."""
HEAD = ("section", "line", "value", "95 % interval", "threshold", "verdict", "note")
CAPTION = (
    "Simulated world; intervals by bootstrap over utterances, of shares by Wilson, of the regime by t over seeds. A line without "
    "a threshold is reported only. Nothing here is an E-MOS or an N-MOS."
)
PHONETICS = "phonetics.csv"
"""Table of the section *Speech*: change of each measure from neutral, by speaker, emotion and sentence."""
VERDICTS = {True: "pass", False: "FAIL", None: "-"}


def verdict(line: Line) -> str:
    """Return ``pass``, ``FAIL``, ``not installed``, or a dash for a line without a threshold."""
    return NOT_INSTALLED if line.note == NOT_INSTALLED else VERDICTS[line.passed]


def row(line: Line) -> list[str]:
    """Return a line's table cells, in the order of `HEAD`."""
    interval = f"{number(line.low)} .. {number(line.high)}" if math.isfinite(line.low) else "-"
    note = "" if line.note == NOT_INSTALLED else line.note
    return [line.section, line.name, number(line.value), interval, line.threshold, verdict(line), note]


def number(value: float) -> str:
    """Format a number with three decimals, or none if it is at least 100 or whole; a dash if it is not finite."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 or (value == int(value) and abs(value) > 1) else f"{value:.3f}"


def conclusion(lines: Sequence[Line]) -> str:
    """Return ``world card: N of M pass``, where M counts the measured lines that have a threshold."""
    judged = [line for line in lines if line.passed is not None]
    return f"world card: {sum(line.passed is True for line in judged)} of {len(judged)} pass"


def passes(lines: Sequence[Line]) -> bool:
    """Return whether no line fails."""
    return all(line.passed is not False for line in lines)


def terminal(lines: Sequence[Line], title: str) -> RichTable:
    """Return the terminal table; only the first line of each section shows the section's name."""
    table = RichTable(title=title, title_justify="left")
    for heading in HEAD:
        table.add_column(heading, justify="right" if heading in ("value", "95 % interval") else "left")
    previous = ""
    for line in lines:
        section, *cells = row(line)
        shown = (Text(cell, style=COLORS.get(cell, "")) for cell in cells)
        table.add_row("" if line.section == previous else section, *shown)
        previous = line.section
    return table


def metrics(lines: Sequence[Line]) -> dict[str, float]:
    """Return the value of each line under a name valid in MLflow, and the number of lines that pass."""
    values = {f"{_slug(line.section)}/{_slug(line.name)}": line.value for line in lines}
    judged = [line for line in lines if line.passed is not None]
    return values | {"passed": float(sum(line.passed is True for line in judged)), "judged": float(len(judged))}


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def sheet(lines: Sequence[Line], title: str) -> Sheet:
    """Return the lines as a table."""
    return Sheet("card", title, tuple(Column(name, name) for name in HEAD), tuple(tuple(row(line)) for line in lines))


def write(lines: Sequence[Line], title: str, out: Path) -> None:
    """Write ``card.md``, ``card.csv`` (unrounded) and ``card.json`` to ``out``. Equal lines give identical bytes."""
    table = sheet(lines, title).with_notes(CAPTION, "", conclusion(lines))
    (out / "card.md").write_text(markdown_page(table), encoding="utf-8")
    names = ("section", "line", "value", "low", "high", "threshold", "verdict", "note")
    raw = tuple((x.section, x.name, x.value, x.low, x.high, x.threshold, verdict(x), x.note) for x in lines)
    (out / "card.csv").write_text(
        as_csv(Sheet("card", title, tuple(Column(name, name) for name in names), raw)), encoding="utf-8"
    )
    save(lines, out / "card.json")


def plot(table: Path, out: Path) -> None:
    """Plot ``phonetics``: change of each measure from neutral by emotion and language, mean and spread over sentences."""
    import pandas as pd

    data = pd.read_csv(table)
    cues = [name for name in data.columns if name not in ("language", "speaker", "emotion")]
    languages, emotions = sorted(data["language"].unique()), list(dict.fromkeys(data["emotion"]))
    groups = data.groupby(["language", "emotion"])[cues]
    mean, spread = groups.mean(), groups.std(ddof=0)
    with figure_of(2.2 * len(cues), 2.8, 1, len(cues), sharey=True) as (figure, axes):
        for axis, cue in zip(axes, cues, strict=True):
            for index, name in enumerate(languages):
                y = [i + 0.22 * (index - (len(languages) - 1) / 2) for i in range(len(emotions))]
                x, xerr = (part.loc[name, cue].reindex(emotions) for part in (mean, spread))
                axis.errorbar(x, y, xerr=xerr, fmt="os^Dv"[index % 5], ms=3, lw=0.8, label=name)
            axis.axvline(0, color="0.6", lw=0.6)
            axis.set(title=cue, xlabel="change, cue units")
        axes[0].set_yticks(range(len(emotions)), emotions)
        axes[0].invert_yaxis()
        axes[-1].legend(frameon=False)
        save_figure(figure, out, "phonetics")
