"""A table as Markdown, CSV, LaTeX (booktabs) and HTML, all from one `Sheet`; the same bytes for the same table."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from ablations.rendering.figure_style import NARROW, width_of
from ablations.rendering.sheet import NONE, Sheet, as_csv, html, markdown

WRAP = 14
"""Characters a line of a heading in LaTeX."""
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
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
"""What LaTeX would take for a command, or its default fonts lack."""
PACKAGES = "booktabs,graphicx,rotating,textcomp"
"""What a document has to load."""
WIDE = 120
"""Characters a row beyond which a table lies on its side."""
FIT = "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}"
"""Shrinks its argument to the page where it is wider."""

LISTING = "files.json"
"""Names of a report's files, so that the next one in the same folder can remove what it does not write again."""


def latex(sheet: Sheet) -> str:
    """A ``table*`` for ``\\input``, turned where it is wide; needs the packages `PACKAGES`. Bold best, underlined second."""
    head, body = sheet.texts()
    marks = sheet.marks()
    width = sum(max(len(row[place]) for row in [[""] * len(head), *body]) + 2 for place in range(len(head)))
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
    for at, row in enumerate(body):
        cells = [
            _latex(text) if column.unit == "text" else _number(text, marks.get((at, place), ""))
            for place, (text, column) in enumerate(zip(row, sheet.columns, strict=True))
        ]
        lines.append(" & ".join(cells) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}}", f"\\end{{{kind}}}", ""])


def _md(sheet: Sheet) -> str:
    return f"# {sheet.title}\n\n{markdown(sheet)}"


FORMATS: dict[str, Callable[[Sheet], str]] = {"md": _md, "csv": as_csv, "tex": latex, "html": html}
"""File ending -> writer."""


def write(sheets: Sequence[Sheet], folder: Path, formats: Sequence[str]) -> list[Path]:
    """Every table in every format, ``<name>.<ending>``."""
    paths = []
    for sheet in sheets:
        for ending in formats:
            path = folder / f"{sheet.name}.{ending}"
            path.write_text(FORMATS[ending](sheet), encoding="utf-8")
            paths.append(path)
    return paths


def sweep(folder: Path, paths: Sequence[Path]) -> None:
    """Removes what a former report left in ``folder`` and this one, which wrote ``paths``, did not write; nobody else's files.

    Otherwise a figure of another selection would stand beside tables that it does not belong to.
    """
    listing = folder / LISTING
    try:
        before = json.loads(listing.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = []
    now = sorted(path.name for path in paths)
    for name in {str(name) for name in before} - set(now) if isinstance(before, list) else ():
        if Path(name).name == name:
            (folder / name).unlink(missing_ok=True)
    listing.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")


def figures_latex(figures: Sequence[tuple[str, str, str]], path: Path) -> Path:
    """Figures for ``\\input`` beside their files, from (stem, title, caption): one column wide, or two where drawn so.

    Needs the packages graphicx and textcomp.
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
    """A number in mathematical mode, so that its sign is a minus."""
    if text == NONE:
        return "--"
    inside = text.replace("±", r"\pm").replace("%", r"\%").replace(" [", r"\ [").replace(", ", r",\ ")
    if mark == "best":
        return f"$\\mathbf{{{inside}}}$"
    return f"\\underline{{${inside}$}}" if mark == "second" else f"${inside}$"
