"""MkDocs hook: replaces ``<!-- examples -->`` in a page by the plugin files of ``examples/`` with their sources."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

EXAMPLES = "<!-- examples -->"
FOLDER = Path(__file__).parents[1] / "examples"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the text of a page; MkDocs calls this for every page."""
    return markdown.replace(EXAMPLES, examples(FOLDER))


def examples(folder: Path) -> str:
    """Return a section per Python file in the folder: the first line of its docstring, and its source."""
    sections = []
    for path in sorted(folder.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        title = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
        sections.append(f"### `examples/{path.name}`\n\n{title}\n\n```python\n{source}```\n")
    return "\n".join(sections)
