"""``python -m reports.results``: paste reports on the archived runs into README.md and docs/, between markers.

The text between ``<!-- results:GRID -->`` and ``<!-- /results:GRID -->`` is replaced by the first screen of a report on that
grid's runs in the archive (`ablations.archive`), and its figures are stored in `FIGURES`. With ``GRID/TABLE`` in both markers it
is replaced by the table with that name. A grid is pasted when all its planned cells are complete. Exit status: 0; 1 if
``--check`` finds a block that differs from the report; 2 for bad input.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from ablations.archive import RECORDS
from ablations.grids import GRIDS
from ablations.rendering.sheet import markdown
from ablations.tracking import archive
from ablations.tracking.runs_folder import SERVER, check
from reports.loading import Selection, select
from reports.report import Report, make
from reports.run import answer
from rrpo.commands import program
from rrpo.errors import InputError, choose

FIGURES = Path("docs", "results")
"""Folder of the figures, ``GRID-NAME.png``."""
NAME = r"(?P<name>(?P<grid>[^\s/]+)(/(?P<table>\S+))?)"
BLOCK = re.compile(rf"<!-- results:{NAME} -->\n.*?<!-- /results:(?P=name) -->", re.DOTALL)
MARKER = re.compile(r"<!-- /?results:\S* -->")
IMAGE = re.compile(r"(?<=\]\()[\w.-]+\.png(?=\))")
app, main = program("reports.results")


@app.command()
def command(
    records: Annotated[Path, typer.Option(help="Archive of runs, with a folder per grid.")] = RECORDS,
    root: Annotated[Path, typer.Option(help="Folder that contains README.md and docs/.")] = Path(),
    check_only: Annotated[bool, typer.Option("--check", help="Change nothing, only report stale blocks.")] = False,
) -> None:
    """Paste reports on the archived runs into README.md and docs/; about a minute per grid."""
    stale = False
    os.environ.pop(SERVER, None)  # the archive goes into a store of its own
    with TemporaryDirectory() as folder:
        for grid, blocks in blocks_by_grid(root).items():
            places = ", ".join(dict.fromkeys(str(block.page.relative_to(root)) for block in blocks))
            if missing := [name for name in grid.split("+") if not any((records / name).glob("*.zip"))]:
                fix = " and ".join(f"python -m ablations.archive save --grid {name} --to {records}" for name in missing)
                print(f"no result yet: {grid} in {places}; run: {fix}")
                continue
            selection = restored(records, grid, Path(folder) / "runs")
            if selection.unfinished:
                others = (f"Of {name}: {other.counted}." for name, other in selection.elsewhere.items())
                print(" ".join([f"no result yet: {grid} in {places}. {selection.counted}", *others]))
                continue
            report = make(selection)
            drawn = next((figure for figure in report.figures if figure.draw(Path(folder))), None)
            text = answer(report, [drawn] if drawn else [])
            figures = {
                path: (Path(folder) / name).read_bytes() for name, path in figure_paths(root, grid, text).items()
            }
            drawn_anew = any(not path.is_file() or path.read_bytes() != content for path, content in figures.items())
            for block in blocks:
                pasted = paste(block, root, table(report, block.table) if block.table else text)
                current = block.text == pasted and not drawn_anew
                verb = "current" if current else "stale" if check_only else "pasted"
                print(f"{verb}: {block.name} in {block.page.relative_to(root)}")
                stale = stale or not current
                if not (current or check_only):
                    page = block.page.read_text(encoding="utf-8")
                    block.page.write_text(page.replace(block.text, pasted), encoding="utf-8")
            if drawn_anew and not check_only:
                (root / FIGURES).mkdir(parents=True, exist_ok=True)
                for path, content in figures.items():
                    path.write_bytes(content)
    raise typer.Exit(1 if stale and check_only else 0)


@dataclass(frozen=True)
class Block:
    """A part of a page that is replaced."""

    page: Path
    """File that contains it."""
    text: str
    """Its text, with both markers."""
    grid: str
    """Name of the grid, or several joined by ``+``."""
    table: str = ""
    """Name of the table; empty for the first screen."""

    @property
    def name(self) -> str:
        """The name in its markers."""
        return f"{self.grid}/{self.table}" if self.table else self.grid


def blocks_by_grid(root: Path) -> dict[str, list[Block]]:
    """Return grid -> its blocks in README.md and docs/.

    Raises:
        InputError: No page has a block, a marker is unmatched, or a grid is unknown.
    """
    found: dict[str, list[Block]] = {}
    for page in [*root.glob("README.md"), *sorted((root / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        blocks = list(BLOCK.finditer(text))
        markers = [marker[0] for marker in MARKER.finditer(text)]
        if len(markers) != 2 * len(blocks):
            fix = "end each <!-- results:GRID --> with <!-- /results:GRID -->"
            got = f"{page}: {', '.join(markers)}"
            raise InputError("a block for results has no beginning or no end", got=got, fix=fix)
        for block in blocks:
            for grid in block["grid"].split("+"):
                choose(f"grid (results:{block['name']} in {page.name})", grid, GRIDS)
            found.setdefault(block["grid"], []).append(Block(page, block[0], block["grid"], block["table"] or ""))
    if not found:
        fix = "add <!-- results:GRID --> and <!-- /results:GRID -->, each on its own line, to README.md or a page in docs/"
        raise InputError("no page has a block for results", got=root.resolve(), fix=fix)
    return found


def restored(records: Path, grid: str, runs_dir: Path) -> Selection:
    """Record a grid's archived runs in a runs folder, and return them."""
    names = grid.split("+")
    for name in names:
        for file in archive.restore(check(runs_dir), records / name):
            print(f"{file.path}: {file.runs} runs")
    return select(runs_dir, names)


def figure_paths(root: Path, grid: str, text: str) -> dict[str, Path]:
    """Return name -> path of each figure in the first screen of a grid's report."""
    return {name: root / FIGURES / f"{grid}-{name}" for name in IMAGE.findall(text)}


def table(report: Report, name: str) -> str:
    """Return a table of a report as Markdown. Raises InputError if the report has no table with that name."""
    tables = {sheet.name: sheet for sheet in report.sheets}
    return f"{markdown(tables[choose('table of the report', name, tables)]).strip()}\n"


def paste(block: Block, root: Path, text: str) -> str:
    """Return a block with a new text."""
    paths = figure_paths(root, block.grid, text)
    body = IMAGE.sub(lambda name: os.path.relpath(paths[name[0]], block.page.parent), text)
    return f"<!-- results:{block.name} -->\n\n{body}\n<!-- /results:{block.name} -->"


if __name__ == "__main__":
    main()
