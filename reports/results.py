"""``python -m reports.results``: paste reports on the archived runs into README.md and docs/, between markers.

`reports.blocks` lists the markers. The runs are those in the archive (`ablations.archive`); a grid is pasted when all its planned
cells are complete, with the first figure of its report. If the archive has the values of `ablations.gradients`, their page is
written too. A study's tables are pasted from ``studies/NAME`` in the archive, into which its report was copied. Exit status: 0; 1
if ``--check`` finds a block that differs from the report; 2 for bad input.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import pandas as pd
import typer

from ablations.archive import RECORDS
from ablations.rendering.gradients import CSV, page
from ablations.tracking import archive
from ablations.tracking.runs_folder import SERVER, check
from reports.blocks import FIGURES, STUDY, blocks_by_grid, figure_paths, filled, pages
from reports.loading import Selection, select
from reports.report import make
from reports.run import answer
from rrpo.commands import program

GRADIENTS = Path("docs", "gradients.md")
"""Page of `ablations.gradients`."""
app, main = program("reports.results")


@app.command()
def command(
    records: Annotated[Path, typer.Option(help="Archive of runs, with a folder per grid.")] = RECORDS,
    root: Annotated[Path, typer.Option(help="Folder that contains README.md and docs/.")] = Path(),
    check_only: Annotated[bool, typer.Option("--check", help="Change nothing, only report stale blocks.")] = False,
) -> None:
    """Paste reports on the archived runs into README.md and docs/; about a minute per grid."""
    stale = any([gradients(records, root, check_only), studies(records, root, check_only)])
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
            figure = None
            if any(block.first_screen for block in blocks):
                figure = next((figure for figure in report.figures if figure.draw(Path(folder))), None)
            text = answer(report, [figure] if figure else [])
            figures = {
                path: (Path(folder) / name).read_bytes() for name, path in figure_paths(root, grid, text).items()
            }
            drawn_anew = any(not path.is_file() or path.read_bytes() != content for path, content in figures.items())
            for block in blocks:
                pasted = filled(block, root, selection, report, text)
                current = block.text == pasted and not (drawn_anew and block.first_screen)
                print(f"{said(current, check_only)}: {block.name} in {block.page.relative_to(root)}")
                stale = stale or not current
                if not (current or check_only):
                    page = block.page.read_text(encoding="utf-8")
                    block.page.write_text(page.replace(block.text, pasted), encoding="utf-8")
            if drawn_anew and not check_only:
                (root / FIGURES).mkdir(parents=True, exist_ok=True)
                for path, content in figures.items():
                    path.write_bytes(content)
    raise typer.Exit(1 if stale and check_only else 0)


def gradients(records: Path, root: Path, check_only: bool) -> bool:
    """Write the page of `ablations.gradients` from the archived values; return whether it was stale."""
    path, values = root / GRADIENTS, records / CSV
    if not values.is_file():
        return False
    text = page(pd.read_csv(values))
    current = path.is_file() and path.read_text(encoding="utf-8") == text
    print(f"{said(current, check_only)}: {GRADIENTS}")
    if not (current or check_only):
        path.write_text(text, encoding="utf-8")
    return not current


def studies(records: Path, root: Path, check_only: bool) -> bool:
    """Paste the archived tables of studies into the pages; return whether any was stale."""
    stale = False
    for path in pages(root):
        text = before = path.read_text(encoding="utf-8")
        for block in STUDY.finditer(before):
            file = records / "studies" / block["study"] / "report" / f"{block['table']}.md"
            if not file.is_file():
                print(
                    f"no result yet: {block['name']} in {path.relative_to(root)}; copy the study's report to {file.parent}"
                )
                continue
            _, _, content = file.read_text(encoding="utf-8").partition("\n\n")  # without the title
            pasted = f"<!-- study:{block['name']} -->\n\n{content.strip()}\n\n<!-- /study:{block['name']} -->"
            current = block[0] == pasted
            stale = stale or not current
            print(f"{said(current, check_only)}: {block['name']} in {path.relative_to(root)}")
            text = text.replace(block[0], pasted)
        if not check_only and text != before:
            path.write_text(text, encoding="utf-8")
    return stale


def said(current: bool, check_only: bool) -> str:
    """Return what happens to a block, in a word."""
    return "current" if current else "stale" if check_only else "pasted"


def restored(records: Path, grid: str, runs_dir: Path) -> Selection:
    """Record a grid's archived runs in a runs folder, and return them."""
    names = grid.split("+")
    for name in names:
        for file in archive.restore(check(runs_dir), records / name):
            print(f"{file.path}: {file.runs} runs")
    return select(runs_dir, names)


if __name__ == "__main__":
    main()
