"""LaTeX and HTML from the same table: everything is escaped and the numbers are equal."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from ablations.rendering.figure_style import NARROW, figure_of, save
from ablations.rendering.figure_style import WIDE as WIDEST
from ablations.rendering.sheet import Column, Sheet, html
from ablations.stats.statistics import Interval
from reports.latex import WIDE, figures_latex, latex
from reports.writers import FORMATS, write

MADE = Sheet(
    "table",
    "Results & more: 100 % of ls_eam",
    (
        Column("arm", "arm"),
        Column("gain", "gold gain at matched KL, points", "gain", +1),
        Column("ece", "calibration error, ECE", "plain"),
        Column("verdict", "verdict"),
    ),
    (
        ("ls_eam", Interval(0.05, 0.03, 0.07, 8), 0.0321, "better"),
        ("a<b>&c", Interval(-0.02, -0.04, 0.0, 8), 0.25, "undecided: 12 seeds #1"),
        ("rrpo", Interval(0.01, -0.01, 0.03, 8), math.nan, "±3 – {none}"),
    ),
    ("Margin ±3 points (#1); √KL ~ d^2 \\ `test` $x$.", "ε × α."),
)


class Text(HTMLParser):
    """Collects the cells of a table as text."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag in ("td", "th"):
            self.inside = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.cells[-1] += data


def test_html_holds_exactly_the_texts_of_the_table():
    parser = Text()
    parser.feed(html(MADE))
    head, body = MADE.texts()
    assert parser.cells == [*head, *(text for row in body for text in row)]
    assert "<b>+5.0 ± 2.0</b>" in html(MADE)
    assert "<u>+1.0 ± 2.0</u>" in html(MADE)
    assert "a<b>" not in html(MADE)


def test_latex_has_every_number_with_a_real_minus():
    text = latex(MADE)
    assert "$\\mathbf{+5.0 \\pm 2.0}$" in text
    assert "\\underline{$+1.0 \\pm 2.0$}" in text
    assert "$-2.0 \\pm 2.0$ & $0.250$" in text
    assert "a$<$b$>$\\&c" in text
    assert "ls\\_eam" in text
    (caption,) = (line for line in text.splitlines() if line.startswith("\\caption"))
    assert not re.search(r"(?<!\\)[&%#_]", caption)
    for escaped in (
        "Results \\& more: 100 \\% of ls\\_eam",
        "\\#1",
        "\\textasciitilde{} d\\textasciicircum{}2",
        "\\$x\\$",
    ):
        assert escaped in caption


def test_every_format_is_written(tmp_path: Path):
    paths = write([MADE], tmp_path, list(FORMATS))
    assert [path.name for path in paths] == ["table.md", "table.csv", "table.tex", "table.html"]
    assert all(path.stat().st_size > 100 for path in paths)


def test_a_wide_table_lies_on_its_side():
    wide = replace(MADE, rows=((("x" * WIDE, *MADE.rows[0][1:])),))
    assert latex(wide).count("sidewaystable*") == 2
    assert "sidewaystable" not in latex(MADE)


def test_a_figure_is_as_wide_as_it_was_drawn(tmp_path: Path):
    for name, width in {"small": NARROW, "large": WIDEST}.items():
        with figure_of(width, 1.0) as (figure, _):
            save(figure, tmp_path, name)
    path = figures_latex([("small", "A", "b"), ("large", "C", "50 %")], tmp_path / "figures.tex")
    small, large = path.read_text().split("\n\n")
    assert small.startswith("\\begin{figure}\\centering\n\\includegraphics[width=\\columnwidth]{small.pdf}")
    assert large.startswith("\\begin{figure*}\\centering\n\\includegraphics[width=\\textwidth]{large.pdf}")
    assert "\\caption{C. 50 \\%}" in large
