"""A format-independent table, `Sheet`, from which Markdown, CSV, LaTeX and HTML are written.

A value is a text, a number or an `Interval`; the column's unit determines its format. Text formats show rounded values; CSV
contains unrounded values, with percentages as fractions.
"""

from __future__ import annotations

import csv
import html as escaping
import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from ablations.stats.statistics import Interval

Value = str | float | Interval
NONE = "–"
"""Shown if there is no value."""
UNITS: dict[str, Callable[[float], str]] = {
    "text": str,
    "count": lambda value: f"{value:.0f}",
    "percent": lambda value: f"{100 * value:.1f}",
    "gain": lambda value: f"{100 * value:+z.1f}",
    "plain": lambda value: f"{value:.3f}",
    "mark": lambda value: f"{value:.2f}",
    "level": lambda value: f"{value:g}",
    "digits": lambda value: f"{float(f'{value:.3g}'):,g}",
    "effect": lambda value: f"{value:+z.2f}",
    "share": lambda value: f"{100 * value:.1f}",
}
"""Unit -> formatter of a number. The values of ``percent``, ``share`` and ``gain`` are fractions."""
BRACKETED = ("effect", "share", "digits")
"""Units with asymmetric intervals, which are written with both bounds."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    """Name in CSV."""
    heading: str
    """Readable heading, with the unit."""
    unit: str = "text"
    """A key of `UNITS`."""
    better: int = 0
    """+1 if more is better, -1 if less is better, 0 if neither. The best and second-best rows are marked unless it is 0."""


RANKED = "Bold: best mean of the column; underlined or italic: second best. This does not imply significance."
"""Sentence in the caption of a table with marks."""


@dataclass(frozen=True)
class Sheet:
    """A table; the first column names the row."""

    name: str
    """Stem of the table's file names."""
    title: str
    """First words of the caption."""
    columns: tuple[Column, ...]
    """Columns, from left to right."""
    rows: tuple[tuple[Value, ...], ...]
    """Rows, with values in the order of the columns."""
    notes: tuple[str, ...] = ()
    """Sentences of the caption."""
    unranked: frozenset[str] = frozenset()
    """Names of reference rows, which are never marked as best or second."""

    @classmethod
    def of(
        cls, name: str, title: str, rows: Iterable[Mapping[Column, Value]], *notes: str, unranked: Iterable[str] = ()
    ) -> Sheet | None:
        """Return a table of rows given as column -> value, all with the same columns; None without rows."""
        body = list(rows)
        values = tuple(tuple(row.values()) for row in body)
        return cls(name, title, tuple(body[0]), values, notes, frozenset(unranked)) if body else None

    def row(self, name: str) -> dict[str, Value]:
        """Return the row with that name as column -> value."""
        values = next(row for row in self.rows if row[0] == name)
        return {column.name: value for column, value in zip(self.columns, values, strict=True)}

    def texts(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and cells as text."""
        head = [column.heading for column in self.columns]
        return head, [[show(v, c.unit) for c, v in zip(self.columns, row, strict=True)] for row in self.rows]

    def marks(self) -> dict[tuple[int, int], str]:
        """Return ``(row, column) -> best | second``, for columns with at least three ranked rows. Equal texts share a mark."""
        marks: dict[tuple[int, int], str] = {}
        _, body = self.texts()
        for j, column in enumerate(self.columns):
            means = {i: _mean(row[j]) for i, row in enumerate(self.rows) if row[0] not in self.unranked}
            ranked = {i: column.better * mean for i, mean in means.items() if math.isfinite(mean)}
            if not column.better or len(ranked) < 3:
                continue
            texts = list(dict.fromkeys(_head(body[i][j]) for i in sorted(ranked, key=lambda i: -ranked[i])))
            for mark, text in zip(("best", "second"), texts, strict=False):
                marks |= {(i, j): mark for i in ranked if _head(body[i][j]) == text}
        return marks

    def with_notes(self, *notes: str) -> Sheet:
        """Return the table with additional notes at the end."""
        return replace(self, notes=(*self.notes, *notes))


def show(value: Value, unit: str) -> str:
    """Format a value: a mean with half its t-interval (or both bounds), a number, a text, or a dash if there is no value."""
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
    """Return a Markdown table with the notes below, as a list; best values are bold, second-best italic."""
    head, body = sheet.texts()
    for (row, j), mark in sheet.marks().items():
        stars = "**" if mark == "best" else "*"
        body[row][j] = f"{stars}{body[row][j]}{stars}"
    rule = ["---" if column.unit == "text" else "---:" for column in sheet.columns]
    lines = ["| " + " | ".join(row) + " |" for row in [head, rule, *body]]
    return "\n".join([*lines, "", *(f"- {note}" for note in sheet.notes)]) + "\n"


def markdown_page(sheet: Sheet) -> str:
    """Return a Markdown page: the title as its heading, and the table."""
    return f"# {sheet.title}\n\n{markdown(sheet)}"


def as_csv(sheet: Sheet) -> str:
    """Return CSV with unrounded values; an interval has four fields, and a missing value is an empty field."""
    intervals = [any(isinstance(row[index], Interval) for row in sheet.rows) for index in range(len(sheet.columns))]
    parts = [[f"_{part}" for part in Interval._fields] if interval else [""] for interval in intervals]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(f"{c.name}{part}" for c, names in zip(sheet.columns, parts, strict=True) for part in names)
    for row in sheet.rows:
        writer.writerow(field for value, names in zip(row, parts, strict=True) for field in _fields(value, len(names)))
    return file.getvalue()


def _fields(value: Value, width: int) -> list[str | float]:
    fields = [*value] if isinstance(value, Interval) else [value, *[""] * (width - 1)]
    return ["" if isinstance(field, float) and math.isnan(field) else field for field in fields]


def _mean(value: Value) -> float:
    return math.nan if isinstance(value, str) else value.mean if isinstance(value, Interval) else float(value)


def _head(text: str) -> str:
    return text.split(" ")[0]


def html(sheet: Sheet, *, notes: bool = True) -> str:
    """Return a ``<table>`` with caption and, optionally, a paragraph of notes; best values are bold, second-best underlined."""
    head, body = sheet.texts()
    marks = sheet.marks()
    kinds = ["text" if column.unit == "text" else "number" for column in sheet.columns]

    def cell(i: int, j: int, text: str) -> str:
        tag = {"best": "b", "second": "u"}.get(marks.get((i, j), ""))
        inside = escaping.escape(text)
        inside = f"<{tag}>{inside}</{tag}>" if tag else inside
        if j == 0:
            return f'<th scope="row">{inside}</th>'
        return f'<td class="{kinds[j]}">{inside}</td>'

    rows = ["<tr>" + "".join(cell(i, k, text) for k, text in enumerate(row)) + "</tr>" for i, row in enumerate(body)]
    headings = "".join(
        f'<th scope="col" class="{kind}"><span>{escaping.escape(text)}</span></th>'
        for kind, text in zip(kinds, head, strict=True)
    )
    footer = f'<p class="notes">{escaping.escape(" ".join(sheet.notes))}</p>\n' if sheet.notes and notes else ""
    return (
        f'<table id="{sheet.name}">\n<caption>{escaping.escape(sheet.title)}</caption>\n<thead><tr>{headings}</tr></thead>\n'
        "<tbody>\n" + "\n".join(rows) + f"\n</tbody>\n</table>\n{footer}"
    )
