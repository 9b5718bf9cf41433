"""``study.html``: the report of a study as one file, beginning with history, importances and response surface."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ablations.rendering.sheet import Sheet, html

PAGE = "study.html"
FIRST = {
    "history": "Value by trial",
    "importance": "What the value depends on",
    "surface": "Response surface",
}
"""Figures shown first -> their headings."""
STYLE = """:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 1rem auto; padding: 0 1rem; }
img { max-width: 100%; height: auto; background: white; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: bold; }
th, td { padding: .1rem .6rem; text-align: left; border-bottom: 1px solid #8884; }
.number { text-align: right; }"""


def write(name: str, sheets: Sequence[Sheet], pictures: Sequence[Path], command: str, folder: Path) -> Path:
    """Write the page with a study's tables and figures (PNG files) and return its path.

    ``command`` is shown as the way to open the study in Optuna's own interface.
    """
    figures = {picture.stem: _figure(picture) for picture in pictures}
    tables = [
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(sheet.title)}">{html(sheet)}</div>'
        for sheet in sheets
    ]
    first = [figures.pop(stem) for stem in FIRST if stem in figures]
    body = "".join([*first, *tables, *figures.values()])
    path = folder / PAGE
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Study {escape(name)}</title><style>{STYLE}</style></head><body><main><h1>Study {escape(name)}</h1>"
        f"{body}<p>In Optuna's interface: <code>{escape(command)}</code></p></main></body></html>\n",
        encoding="utf-8",
    )
    return path


def _figure(picture: Path) -> str:
    content, title = base64.b64encode(picture.read_bytes()).decode(), FIRST.get(picture.stem, picture.stem)
    image = f'<img src="data:image/png;base64,{content}" alt="{escape(picture.stem)}">'
    return f"<h2>{escape(title)}</h2><p>{image}</p>"
