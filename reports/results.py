"""``python -m reports.results --runs-dir runs``: paste the output of `reports.run` into README.md and docs/, between markers.

The text between ``<!-- results:GRID -->`` and ``<!-- /results:GRID -->`` is replaced by that grid's first screen
(``answer.md``), and its figures are copied to `FIGURES`. Nothing is computed. Exit status: 0; 1 if ``--check`` finds a block
that differs from the report; 2 for bad input.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from ablations.commands import RecordedIn, exit_on_input_error, program
from ablations.errors import InputError, choose
from ablations.grids import GRIDS
from reports.page import ANSWER

FIGURES = Path("docs", "results")
"""Folder of the copied figures, ``GRID-NAME.png``."""
BLOCK = re.compile(r"<!-- results:(?P<grid>\S+) -->\n.*?<!-- /results:(?P=grid) -->", re.DOTALL)
MARKER = re.compile(r"<!-- /?results:\S* -->")
IMAGE = re.compile(r"(?<=\]\()[\w.-]+\.png(?=\))")
app, main = program("reports.results")


@app.command()
def command(
    runs_dir: RecordedIn = Path("runs"),
    root: Annotated[Path, typer.Option(help="Folder that contains README.md and docs/.")] = Path(),
    check_only: Annotated[bool, typer.Option("--check", help="Change nothing, only report stale blocks.")] = False,
) -> None:
    """Paste the newest reports into README.md and docs/."""
    with exit_on_input_error():
        paths = [*root.glob("README.md"), *sorted((root / "docs").glob("*.md"))]
        pages = {page: page.read_text(encoding="utf-8") for page in paths}
        blocks = [(page, block) for page, text in pages.items() for block in found(page, text)]
        if not blocks:
            fix = "add <!-- results:GRID --> and <!-- /results:GRID -->, each on its own line, to README.md or a page in docs/"
            raise InputError("no page has a block for results", got=root.resolve(), fix=fix)
    stale = False
    for page, block in blocks:
        grid = block["grid"]
        location = f"{page.relative_to(root)}, results:{grid}"
        report = runs_dir / "reports" / grid
        if not (report / ANSWER).is_file():
            print(
                f"no result yet: {location}; create it with: python -m reports.run --grid {grid} --runs-dir {runs_dir}"
            )
            continue
        answer = (report / ANSWER).read_text(encoding="utf-8")
        figures = {root / FIGURES / f"{grid}-{name}": (report / name).read_bytes() for name in IMAGE.findall(answer)}
        folder = os.path.relpath(root / FIGURES, page.parent)
        body = IMAGE.sub(rf"{folder}/{grid}-\g<0>", answer)
        pasted = f"<!-- results:{grid} -->\n\n{body}\n<!-- /results:{grid} -->"
        if block[0] == pasted and all(path.is_file() and path.read_bytes() == figures[path] for path in figures):
            print(f"current: {location}")
            continue
        stale = True
        print(f"{'stale' if check_only else 'pasted'}: {location}")
        if not check_only:
            pages[page] = pages[page].replace(block[0], pasted)
            page.write_text(pages[page], encoding="utf-8")
            for path, content in figures.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    raise typer.Exit(1 if stale and check_only else 0)


def found(page: Path, text: str) -> list[re.Match[str]]:
    """Return a page's blocks. Raises InputError for an unmatched marker or an unknown grid."""
    blocks = list(BLOCK.finditer(text))
    markers = [marker[0] for marker in MARKER.finditer(text)]
    if len(markers) != 2 * len(blocks):
        fix = "end each <!-- results:GRID --> with <!-- /results:GRID -->"
        raise InputError("a block for results has no beginning or no end", got=f"{page}: {', '.join(markers)}", fix=fix)
    for block in blocks:
        for grid in block["grid"].split("+"):
            choose(f"grid (results:{block['grid']} in {page.name})", grid, GRIDS)
    return blocks


if __name__ == "__main__":
    main()
