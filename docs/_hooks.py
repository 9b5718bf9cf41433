"""MkDocs hook: fills in what pages take from the source.

``<!-- columns: NAME -->`` becomes a table of that dictionary of `ablations.tracking.records`, ``<!-- examples -->`` the plugin
files of ``examples/`` with their sources.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.tracking import records

COLUMNS = re.compile(r"<!-- columns: (\w+) -->")
EXAMPLES = "<!-- examples -->"
FOLDER = Path(__file__).parents[1] / "examples"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the text of a page; MkDocs calls this for every page."""
    filled = COLUMNS.sub(lambda marker: table(getattr(records, marker[1])), markdown)
    return filled.replace(EXAMPLES, examples(FOLDER))


def table(columns: Mapping[str, str]) -> str:
    """Return a Markdown table of names and meanings."""
    rows = [f"| `{name}` | {meaning} |" for name, meaning in columns.items()]
    return "\n".join(["| name | meaning |", "|---|---|", *rows])


def examples(folder: Path) -> str:
    """Return a section per Python file in the folder: the first line of its docstring, and its source."""
    sections = []
    for path in sorted(folder.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        title = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
        sections.append(f"### `examples/{path.name}`\n\n{title}\n\n```python\n{source}```\n")
    return "\n".join(sections)
