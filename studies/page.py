"""``study.html``: the report of a study as one file, beginning with history, importances and response surface."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ablations.rendering.sheet import Sheet, html

PAGE = "study.html"
HEADINGS = {
    "history": "Value by trial",
    "importance": "What the value depends on",
    "surface": "Response surface",
    "pareto": "Trade-off between the objectives",
    "slice": "Value by hyperparameter",
}
"""Figures -> their headings."""
LAST = ("pareto", "slice")
"""Figures shown after the tables."""
STYLE = """:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 1rem auto; padding: 0 1rem; }
img { max-width: 100%; height: auto; background: white; }
.row { display: flex; flex-wrap: wrap; gap: 0 2rem; } .row figure { flex: 1 1 26rem; }
figure { margin: 0; } figcaption { font-weight: bold; margin: .8rem 0 .2rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: bold; white-space: nowrap; }
th, td { padding: .1rem .6rem; text-align: left; border-bottom: 1px solid #8884; }
.number { text-align: right; }"""


def write(name: str, sheets: Sequence[Sheet], pictures: Sequence[Path], command: str, folder: Path) -> Path:
    """Write the page with a study's tables and figures (PNG files) and return its path.

    ``command`` is shown as the way to open the study in Optuna's own interface.
    """
    by_stem = {picture.stem: picture for picture in pictures}
    figures = {stem: _figure(by_stem[stem]) for stem in HEADINGS if stem in by_stem}
    tables = [
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(sheet.title)}">{html(sheet)}</div>'
        for sheet in sheets
    ]
    last = [figures.pop(stem) for stem in LAST if stem in figures]
    body = "".join([f'<div class="row">{"".join(figures.values())}</div>', *tables, *last])
    path = folder / PAGE
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Study {escape(name)}</title><style>{STYLE}</style></head><body><main><h1>Study {escape(name)}</h1>"
        f"{body}<p>In Optuna's interface: <code>{escape(command)}</code></p></main></body></html>\n",
        encoding="utf-8",
    )
    return path


def _figure(picture: Path) -> str:
    content = base64.b64encode(picture.read_bytes()).decode()
    image = f'<img src="data:image/png;base64,{content}" alt="{escape(picture.stem)}">'
    return f"<figure><figcaption>{HEADINGS[picture.stem]}</figcaption>{image}</figure>"
