"""The format-independent form of a table, `Sheet`, from which Markdown, CSV, LaTeX and HTML are written.

A value is a text, a number or an `Interval`; its column's unit says how it is shown. Text formats show rounded values, CSV keeps
them unrounded, as fractions.
"""

from __future__ import annotations

import csv
import html as escaping
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ablations.stats.statistics import Interval

Value = str | float | Interval
NONE = "–"
"""Shown where there is no value."""
UNITS: dict[str, Callable[[float], str]] = {
    "text": str,
    "count": lambda value: f"{value:.0f}",
    "percent": lambda value: f"{100 * value:.1f}",
    "gain": lambda value: f"{100 * value:+z.1f}",
    "plain": lambda value: f"{value:.3f}",
    "mark": lambda value: f"{value:.2f}",
    "level": lambda value: f"{value:g}",
    "effect": lambda value: f"{value:+z.2f}",
    "share": lambda value: f"{100 * value:.1f}",
    "p": lambda value: "<0.0001" if value < 0.0001 else f"{value:.4f}",
}
"""How a number of each unit is written; ``percent``, ``share`` and ``gain`` show fractions."""
BRACKETED = ("effect", "share")
"""Units whose intervals are not symmetric, written with both bounds."""


@dataclass(frozen=True)
class Column:
    """One measure."""

    name: str
    """In CSV."""
    heading: str
    """For people, with the unit."""
    unit: str = "text"
    """A key of `UNITS`."""
    better: int = 0
    """+1 where more is better, -1 where less is, 0 where neither: best and second of the rows are marked."""


@dataclass(frozen=True)
class Sheet:
    """A table; the first column names the row."""

    name: str
    """Stem of its files."""
    title: str
    """Caption's first words."""
    columns: tuple[Column, ...]
    """From left to right."""
    rows: tuple[tuple[Value, ...], ...]
    """Values in the order of the columns."""
    notes: tuple[str, ...] = ()
    """What the caption has to say."""
    unranked: frozenset[str] = frozenset()
    """Rows that only frame the others: never marked best or second."""

    def row(self, name: str) -> dict[str, Value]:
        """One row by its name, column -> value."""
        found = next(row for row in self.rows if row[0] == name)
        return {column.name: value for column, value in zip(self.columns, found, strict=True)}

    def texts(self) -> tuple[list[str], list[list[str]]]:
        """Headings and cells as text."""
        head = [column.heading for column in self.columns]
        return head, [[show(v, c.unit) for c, v in zip(self.columns, row, strict=True)] for row in self.rows]

    def marks(self) -> dict[tuple[int, int], str]:
        """``(row, column) -> best | second`` of at least three ranked rows; rows shown alike share their mark."""
        found: dict[tuple[int, int], str] = {}
        _, body = self.texts()
        for place, column in enumerate(self.columns):
            means = {at: _mean(row[place]) for at, row in enumerate(self.rows) if row[0] not in self.unranked}
            ranked = {at: column.better * mean for at, mean in means.items() if math.isfinite(mean)}
            if not column.better or len(ranked) < 3:
                continue
            shown = list(dict.fromkeys(_head(body[at][place]) for at in sorted(ranked, key=lambda at: -ranked[at])))
            for mark, text in zip(("best", "second"), shown, strict=False):
                found |= {(at, place): mark for at in ranked if _head(body[at][place]) == text}
        return found

    def noted(self, *notes: str) -> Sheet:
        """The same table with more notes at the end."""
        return replace(self, notes=(*self.notes, *notes))


def show(value: Value, unit: str) -> str:
    """A value as text: a mean with half its t-interval, or with both bounds, a number, a dash for none."""
    if isinstance(value, str):
        return value
    write = UNITS[unit]
    if not isinstance(value, Interval):
        return NONE if math.isnan(value) else write(value)
    if value.n == 0 or math.isnan(value.mean):
        return NONE
    if math.isnan(value.low):
        return write(value.mean)
    if unit in BRACKETED:
        return f"{write(value.mean)} [{write(value.low)}, {write(value.high)}]"
    return f"{write(value.mean)} ± {write(value.high - value.mean).removeprefix('+')}"


def markdown(sheet: Sheet) -> str:
    """A Markdown table with its notes below; bold best, italic second."""
    head, body = sheet.texts()
    for (row, place), mark in sheet.marks().items():
        stars = "**" if mark == "best" else "*"
        body[row][place] = f"{stars}{body[row][place]}{stars}"
    rule = ["---" if column.unit == "text" else "---:" for column in sheet.columns]
    lines = ["| " + " | ".join(row) + " |" for row in [head, rule, *body]]
    return "\n".join([*lines, "", *sheet.notes]) + "\n"


def as_csv(sheet: Sheet) -> str:
    """Unrounded fractions; an interval is four fields, no value an empty one."""
    parts = [_parts(sheet, place) for place in range(len(sheet.columns))]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([f"{c.name}{part}" for c, names in zip(sheet.columns, parts, strict=True) for part in names])
    for row in sheet.rows:
        fields = [text for value, names in zip(row, parts, strict=True) for text in _fields(value, len(names))]
        writer.writerow(fields)
    return file.getvalue()


def _parts(sheet: Sheet, place: int) -> list[str]:
    wide = any(isinstance(row[place], Interval) for row in sheet.rows)
    return [f"_{part}" for part in Interval._fields] if wide else [""]


def _fields(value: Value, width: int) -> list[str]:
    if isinstance(value, Interval):
        return [_raw(value.mean), _raw(value.low), _raw(value.high), str(value.n)]
    return [value if isinstance(value, str) else _raw(value)] + [""] * (width - 1)


def _raw(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


def _mean(value: Value) -> float:
    return math.nan if isinstance(value, str) else value.mean if isinstance(value, Interval) else float(value)


def _head(text: str) -> str:
    return text.split(" ")[0]


def html(sheet: Sheet, *, notes: bool = True) -> str:
    """A ``<table>`` with its caption, and its notes in a paragraph where asked for. Bold best, underlined second."""
    head, body = sheet.texts()
    marks = sheet.marks()
    kinds = ["text" if column.unit == "text" else "number" for column in sheet.columns]

    def cell(at: int, place: int, text: str) -> str:
        tag = {"best": "b", "second": "u"}.get(marks.get((at, place), ""))
        inside = escaping.escape(text)
        inside = f"<{tag}>{inside}</{tag}>" if tag else inside
        if place == 0:
            return f'<th scope="row">{inside}</th>'
        return f'<td class="{kinds[place]}">{inside}</td>'

    rows = ["<tr>" + "".join(cell(at, k, text) for k, text in enumerate(row)) + "</tr>" for at, row in enumerate(body)]
    headings = "".join(
        f'<th scope="col" class="{kind}"><span>{escaping.escape(text)}</span></th>'
        for kind, text in zip(kinds, head, strict=True)
    )
    below = f'<p class="notes">{escaping.escape(" ".join(sheet.notes))}</p>\n' if sheet.notes and notes else ""
    return (
        f'<table id="{sheet.name}">\n<caption>{escaping.escape(sheet.title)}</caption>\n<thead><tr>{headings}</tr></thead>\n'
        "<tbody>\n" + "\n".join(rows) + f"\n</tbody>\n</table>\n{below}"
    )
