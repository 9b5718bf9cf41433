"""Places in README.md and docs/ that contain results, between markers that a reader of the page does not see.

    <!-- results:GRID -->                      the first screen of a report on the grid's runs
    <!-- results:GRID/TABLE -->                its table with that name
    <!-- number:GRID OUTCOME ARM -->           in a sentence or a cell of a table: an arm's mean over seeds
    <!-- number:GRID OUTCOME ARM - OTHER -->   the mean difference of two arms within seeds
    <!-- study:NAME/TABLE -->                  a table of a study's report, which was copied into the archive

They end with the same marker with ``/results`` or ``/study``, on a line of its own, numbers with ``<!-- /number -->``. Numbers
are read after the last update, with half their 95 % t-interval; accuracies and rates are in percent or points.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ablations.grids import GRIDS
from ablations.outcomes import find
from ablations.rendering.sheet import NONE, markdown, show
from ablations.rendering.summary import over_seeds
from reports.effects import difference_column, differences
from reports.loading import Selection
from reports.report import Report
from rrpo.errors import InputError, choose

FIGURES = Path("docs", "results")
"""Folder of the figures, ``GRID-NAME.png``."""
RESULTS = re.compile(
    r"<!-- results:(?P<name>(?P<grid>[^\s/]+)(/(?P<table>\S+))?) -->\n.*?<!-- /results:(?P=name) -->", re.DOTALL
)
STUDY = re.compile(
    r"<!-- study:(?P<name>(?P<study>[\w.-]+)/(?P<table>\w+)) -->\n.*?<!-- /study:(?P=name) -->", re.DOTALL
)
NUMBER = re.compile(
    r"<!-- number:(?P<grid>\S+) (?P<outcome>\S+) (?P<arm>\S+)( - (?P<other>\S+))? -->[^\n]*?<!-- /number -->"
)
MARKER = re.compile(r"<!-- (?P<end>/?)(results|number|study)\b[^\n]*? -->")
IMAGE = re.compile(r"(?<=\]\()[\w.-]+\.png(?=\))")


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
    """Name of a table; empty for the first screen and for a number."""
    outcome: str = ""
    """Outcome of a number; empty otherwise."""
    arms: tuple[str, ...] = ()
    """The arm of a number, or the two arms of a difference."""

    @property
    def first_screen(self) -> bool:
        """Whether it shows the first screen of the report, with a figure."""
        return not (self.table or self.outcome)

    @property
    def name(self) -> str:
        """What it shows, as in its first marker."""
        if self.outcome:
            return f"{self.grid} {self.outcome} {' - '.join(self.arms)}"
        return f"{self.grid}/{self.table}" if self.table else self.grid

    @property
    def marker(self) -> str:
        """Its first marker, without the signs of a comment."""
        return f"{'number' if self.outcome else 'results'}:{self.name}"

    def shows(self, content: str) -> str:
        """Return its text with another content between the markers."""
        if self.outcome:
            return f"<!-- {self.marker} -->{content}<!-- /number -->"
        return f"<!-- {self.marker} -->\n\n{content}\n<!-- /{self.marker} -->"


def pages(root: Path) -> list[Path]:
    """Return the pages that can have blocks."""
    return [*root.glob("README.md"), *sorted((root / "docs").glob("*.md"))]


def blocks_by_grid(root: Path) -> dict[str, list[Block]]:
    """Return grid -> its blocks in README.md and docs/.

    Raises:
        InputError: No page has a block, a marker is unmatched, or a grid is unknown.
    """
    found: dict[str, list[Block]] = {}
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        blocks = [
            *(Block(page, b[0], b["grid"], b["table"] or "") for b in RESULTS.finditer(text)),
            *(
                Block(page, b[0], b["grid"], outcome=b["outcome"], arms=tuple(filter(None, (b["arm"], b["other"]))))
                for b in NUMBER.finditer(text)
            ),
        ]
        markers = [marker[0] for marker in MARKER.finditer(text)]
        if len(markers) != 2 * (len(blocks) + len(STUDY.findall(text))):
            fix = "end <!-- results:GRID --> with <!-- /results:GRID -->, a study likewise, a number with <!-- /number -->"
            got = f"{page}: {', '.join(markers)}"
            raise InputError("a block for results has no beginning or no end", got=got, fix=fix)
        for block in blocks:
            for grid in block.grid.split("+"):
                choose(f"grid ({block.marker} in {page.name})", grid, GRIDS)
            found.setdefault(block.grid, []).append(block)
    if not found:
        fix = "add <!-- results:GRID --> and <!-- /results:GRID -->, each on its own line, to README.md or a page in docs/"
        raise InputError("no page has a block for results", got=root.resolve(), fix=fix)
    return found


def filled(block: Block, root: Path, selection: Selection, report: Report, answer: str) -> str:
    """Return a block with its content from the grid's records; ``answer`` is the first screen of their report.

    Raises:
        InputError: The report has no such table, or the records no such arm or outcome.
    """
    if block.outcome:
        return block.shows(number(selection, block.outcome, block.arms))
    paths = figure_paths(root, block.grid, answer)
    content = table(report, block.table) if block.table else answer
    return block.shows(IMAGE.sub(lambda name: os.path.relpath(paths[name[0]], block.page.parent), content))


def figure_paths(root: Path, grid: str, text: str) -> dict[str, Path]:
    """Return name -> path of each figure in the first screen of a grid's report."""
    return {name: root / FIGURES / f"{grid}-{name}" for name in IMAGE.findall(text)}


def table(report: Report, name: str) -> str:
    """Return a table of a report as Markdown. Raises InputError if the report has no table with that name."""
    tables = {sheet.name: sheet for sheet in report.sheets}
    return f"{markdown(tables[choose('table of the report', name, tables)]).strip()}\n"


def number(selection: Selection, name: str, arms: tuple[str, ...]) -> str:
    """Return an arm's mean of an outcome, or the difference of two arms, as text.

    Raises InputError if an arm is not in the selection, or if the outcome has no value.
    """
    for arm in arms:
        choose(f"arm of grid {selection.grid}", arm, selection.arms)
    outcome = find(name)
    if len(arms) == 1:
        text = show(over_seeds(outcome, selection.of(arms[0])), outcome.unit)
    else:
        column, (first, other) = difference_column(outcome), arms
        estimated = differences(selection, [(first, other)], name).get((first, other))
        text = show(estimated[column], column.unit) if estimated else NONE
    if text == NONE:
        fix = "name an outcome of ablations/outcomes.py, a column of the points, or a scalar"
        raise InputError(f"{' - '.join(arms)} has no value of this outcome", got=name, fix=fix)
    return text
