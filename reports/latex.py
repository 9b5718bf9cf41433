"""Write tables (booktabs) and figures for LaTeX."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from ablations.rendering.figure_style import NARROW, width_of
from ablations.rendering.sheet import NONE, Sheet

WRAP = 14
"""Maximum number of characters per line of a heading in LaTeX."""
LATEX = {letter: f"\\{letter}" for letter in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "–": "--",
    "±": r"$\pm$",
    "√": r"$\sqrt{\,}$",
    "×": r"$\times$",
    "ε": r"$\varepsilon$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "`": r"\textquotesingle{}",
}
"""Characters that are special in LaTeX, or missing in its default fonts."""
PACKAGES = "booktabs,graphicx,rotating,textcomp"
"""Packages that a document must load."""
WIDE = 120
"""Number of characters per row above which a table is rotated."""
FIT = "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}"
"""Shrinks its argument to the width of the page if it is wider."""


def latex(sheet: Sheet) -> str:
    """Return a ``table*`` for ``\\input``, rotated if wide; needs `PACKAGES`. The best value is bold, the second best
    underlined."""
    head, body = sheet.texts()
    marks = sheet.marks()
    width = sum(max(len(row[j]) for row in [[""] * len(head), *body]) + 2 for j in range(len(head)))
    kind = "sidewaystable*" if width > WIDE else "table*"
    lines = [
        f"% needs \\usepackage{{{PACKAGES}}}",
        f"\\begin{{{kind}}}\\centering\\small\\setlength{{\\tabcolsep}}{{4pt}}",
        f"\\caption{{{_latex(sheet.title)}. {_latex(' '.join(sheet.notes))}}}",
        f"\\label{{tab:{sheet.name}}}",
        f"{FIT}{{%",
        f"\\begin{{tabular}}{{{''.join('l' if c.unit == 'text' else 'r' for c in sheet.columns)}}}",
        "\\toprule",
        " & ".join(_stacked(text) for text in head) + " \\\\",
        "\\midrule",
    ]
    for i, row in enumerate(body):
        cells = [
            _latex(text) if column.unit == "text" else _number(text, marks.get((i, j), ""))
            for j, (text, column) in enumerate(zip(row, sheet.columns, strict=True))
        ]
        lines.append(" & ".join(cells) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}}", f"\\end{{{kind}}}", ""])


def figures_latex(figures: Sequence[tuple[str, str, str]], path: Path) -> Path:
    """Write a file for ``\\input`` with figures given as (stem, title, caption), one or two columns wide as drawn.

    The file must be in the folder of the figures. Needs the packages graphicx and textcomp.
    """
    parts = []
    for stem, title, caption in figures:
        narrow = width_of(path.with_name(f"{stem}.png")) <= NARROW
        kind, width = ("figure", "\\columnwidth") if narrow else ("figure*", "\\textwidth")
        parts.append(
            f"\\begin{{{kind}}}\\centering\n"
            f"\\includegraphics[width={width}]{{{stem}.pdf}}\n"
            f"\\caption{{{_latex(title)}. {_latex(caption)}}}\n"
            f"\\label{{fig:{stem}}}\n"
            f"\\end{{{kind}}}\n"
        )
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def _latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def _stacked(text: str) -> str:
    lines = textwrap.wrap(text, WRAP) or [""]
    return "\\shortstack{" + "\\\\".join(_latex(line) for line in lines) + "}" if len(lines) > 1 else _latex(text)


def _number(text: str, mark: str) -> str:
    """Return a number in math mode, so that its sign is a minus."""
    if text == NONE:
        return "--"
    inside = (
        text.replace(" to ", r"\mbox{ to }")
        .replace("±", r"\pm")
        .replace("%", r"\%")
        .replace(" [", r"\ [")
        .replace(", ", r",\ ")
    )
    if mark == "best":
        return f"$\\mathbf{{{inside}}}$"
    return f"\\underline{{${inside}$}}" if mark == "second" else f"${inside}$"
