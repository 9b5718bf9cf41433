"""Write a `Sheet` as Markdown, CSV, LaTeX (booktabs) and HTML, and figures for LaTeX. The same input gives the same bytes."""

from __future__ import annotations

import json
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ablations.rendering.figure_style import NARROW, width_of
from ablations.rendering.sheet import NONE, Sheet, as_csv, html, markdown
from rrpo.errors import InputError

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

TEMPLATES = Path(__file__).parent
"""Folder of the templates of pages and texts."""
LISTING = "files.json"
"""File that lists a report's files, so that the next report in the folder can remove those that it does not write."""


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


def _md(sheet: Sheet) -> str:
    return f"# {sheet.title}\n\n{markdown(sheet)}"


FORMATS: dict[str, Callable[[Sheet], str]] = {"md": _md, "csv": as_csv, "tex": latex, "html": html}
"""File ending -> writer."""


def render(template: str, **values: Any) -> str:
    """Return a page, or a text, from its template."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    escape = template.endswith(".html.j2")
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=escape, undefined=StrictUndefined)
    return environment.get_template(template).render(**values)


def writable(folder: Path, file: Path | None = None) -> Path:
    """Create the folder if it is missing, and return it. Raise InputError if nothing, or not that ``file``, can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if file is not None and file.is_dir():
            raise IsADirectoryError(f"{file} is a folder")
    except OSError as error:
        raise InputError("output cannot be written there", got=f"{folder}: {error}", fix="give another --out") from None
    return folder


def write(sheets: Sequence[Sheet], folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write every table in every format, as ``<name>.<ending>``."""
    paths = []
    for sheet in sheets:
        for ending in formats:
            path = folder / f"{sheet.name}.{ending}"
            path.write_text(FORMATS[ending](sheet), encoding="utf-8")
            paths.append(path)
    return paths


def sweep(folder: Path, paths: Sequence[Path]) -> None:
    """Remove files in ``folder`` that an earlier report wrote and this one, which wrote ``paths``, did not. Other files are
    kept.

    Otherwise, figures of another selection could be mistaken for figures of this one.
    """
    listing = folder / LISTING
    try:
        previous = json.loads(listing.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        previous = []
    current = sorted(path.name for path in paths)
    for name in {str(name) for name in previous} - set(current) if isinstance(previous, list) else ():
        if Path(name).name == name:
            (folder / name).unlink(missing_ok=True)
    listing.write_text(json.dumps(current, indent=1) + "\n", encoding="utf-8")


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
    inside = text.replace("±", r"\pm").replace("%", r"\%").replace(" [", r"\ [").replace(", ", r",\ ")
    if mark == "best":
        return f"$\\mathbf{{{inside}}}$"
    return f"\\underline{{${inside}$}}" if mark == "second" else f"${inside}$"
