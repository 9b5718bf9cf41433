"""Write a report's tables as Markdown, CSV, LaTeX and HTML, and render its pages. The same input gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ablations.rendering.sheet import Sheet, as_csv, html, markdown_page
from reports.latex import latex

TEMPLATES = Path(__file__).parent
"""Folder of the templates of pages and texts."""
LISTING = "report-files.json"
"""File that lists a report's files, so that the next report in the folder can remove those that it does not write."""

WRITTEN = "files written by reports.run"
"""Key of the list in `LISTING`."""
FORMATS: dict[str, Callable[[Sheet], str]] = {"md": markdown_page, "csv": as_csv, "tex": latex, "html": html}
"""File ending -> writer."""


def render(template: str, **values: Any) -> str:
    """Return a page, or a text, from its template."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    escape = template.endswith(".html.j2")
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=escape, undefined=StrictUndefined)
    return environment.get_template(template).render(**values)


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
        previous = {str(name) for name in json.loads(listing.read_text(encoding="utf-8"))[WRITTEN]}
    except (OSError, ValueError, KeyError, TypeError):
        previous = set()
    current = sorted(path.name for path in paths)
    for name in previous - set(current):
        if Path(name).name == name and (folder / name).is_file():
            (folder / name).unlink()
    listing.write_text(json.dumps({WRITTEN: current}, indent=1) + "\n", encoding="utf-8")
