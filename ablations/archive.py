"""``python -m ablations.archive save --grid full --to reports/records``: keep a grid's runs outside the runs folder.

The saved runs fit into a repository: without audio and weights, a cell takes some 170 KB. After ``restore``, tables and figures
are made from them as from runs of one's own, and a grid that was interrupted is continued on another machine.

Exit status: 0, 2 for invalid input or a store that does not answer, 130 after Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from ablations.commands import RecordedIn, RunsDir, print_line, terminal
from ablations.tracking import archive
from ablations.tracking.archive import Saved
from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import check
from rrpo.commands import program
from rrpo.errors import choose

RECORDS = Path("reports", "records")
"""Folder of the archive that comes with this repository."""
app, main = program("ablations.archive")


@app.callback()
def callback() -> None:
    """Keep a grid's runs outside the runs folder, and restore them."""


@app.command()
def save(
    grid: Annotated[str, typer.Option(help="Grid whose complete and failed cells are saved.")],
    to: Annotated[Path, typer.Option(help="Folder of the archive; each grid has a folder in it.")] = RECORDS,
    runs_dir: RecordedIn = Path("runs"),
) -> None:
    """Save a grid's runs, without audio, tokens, weights, logs and ratings; runs that are only in the archive stay there."""
    folder = check(runs_dir)
    folder.require()
    store = Store(folder)
    choose("grid with records", grid, store.grids())
    _show(archive.save(store, grid, to), "saved")


@app.command()
def restore(
    archived: Annotated[
        Path, typer.Argument(help="Folder of the archive, of one grid in it, or one of its files.")
    ] = RECORDS,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Record the runs of an archive in a runs folder; a run recorded there changes only if the archive has a better state."""
    _show(archive.restore(check(runs_dir), archived), "restored")


def _show(files: Iterable[Saved], verb: str) -> None:
    """Print a line for each file as it is finished."""
    console = terminal()
    for file in files:
        size = file.path.stat().st_size / 2**20
        print_line(console, f"{file.path}: {file.runs} runs, {file.new} of them {verb} now, {size:.1f} MiB")


if __name__ == "__main__":
    main()
