"""``python -m ablations.status --runs-dir runs``: every cell of every grid, who works on it, how far it is, where its log lies.

Reads store and claims and starts nothing; like every command it puts the store in order first (`ablations.tracking.reader`). Exit
status: 0, or 2 for bad input or a store that does not answer.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table as RichTable

from ablations.commands import Plugin, RunsDir, refusing, start
from ablations.errors import InputError, choose
from ablations.execution.estimate import duration
from ablations.execution.planned import PlannedCell, read_plan
from ablations.execution.runs_folder import RunsFolder, check
from ablations.tracking.reader import Store
from rrpo.pipeline.claims import Claims
from rrpo.pipeline.progress import progress_of
from rrpo.pipeline.stages import stored
from rrpo.profiles import title

WIDTH = 170
"""Columns where the output is no terminal."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Row:
    """One cell."""

    cell: str
    """``arm/seed``."""
    profile: str
    """Its size, and its world where that is not the installed one; empty where it is not known."""
    state: str
    """done, at work, waiting, failed (why)."""
    owner: str = ""
    """Who is at work on it."""
    age: str = ""
    """Since it was recorded, or since the work began."""
    step: str = ""
    """Last step of the stage that is built."""
    log: str = ""
    """Log of that stage, or of the failed one."""


@app.command()
def command(
    grid: Annotated[str | None, typer.Option(help="Only this grid. Default: every grid in the folder.")] = None,
    plugin: Plugin = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Show every cell: state, owner, age, last step, log."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    with refusing():
        folder = check(runs_dir)
        if not folder.exists:
            raise InputError("there is no runs folder", got=runs_dir, fix="give --runs-dir one that a run made")
        store = Store(folder)
        names = store.grids()
        chosen = names if grid is None else [choose("grid in this folder", grid, names)]
        found = {name: status(store, name) for name in chosen}
    for name, rows in found.items():
        table = RichTable(title=f"grid {name}: {summary(rows)}", title_justify="left")
        for heading in ("cell", "profile", "state", "owner", "age", "last step", "log"):
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(row.cell, row.profile, row.state, row.owner, row.age, row.step, row.log)
        console.print(table)
    if not chosen:
        console.print("No grid has been run here.")


def status(store: Store, grid: str) -> list[Row]:
    """Every cell that the grid's invocations planned, then those that failed and were planned anew since."""
    folder = store.folder
    done, lost = store.states(grid)
    now = time.time()
    at_work = Claims(folder.claims).holders()
    rows = []
    cells = read_plan(folder, grid)
    for cell in cells:
        name = (cell.name, title(cell.profile, cell.world))
        if record := done.get(cell.hash):
            rows.append(Row(*name, "done", age=duration(now - record.recorded / 1000)))
        elif found := [(stage, log) for stage, log in cell.stages if stage in at_work]:
            stage, log = found[-1]  # the cell's own before shared ones
            said = progress_of(folder.root, stage)
            kind = stage.rpartition("-")[0]
            step = f"{kind} {said.done} of {said.total}" if said else kind
            age = duration(now - said.started) if said else ""
            rows.append(Row(*name, "at work", str(at_work[stage]), age, step, str(folder.logs / f"{log}.log")))
        elif why := lost.get(cell.hash):
            rows.append(Row(*name, f"failed, {why}", log=_last_log(cell, folder)))
        else:
            rows.append(Row(*name, "waiting"))
    known = {cell.hash for cell in cells}
    rows += [Row(f"cell {key[:8]}", "", f"failed, {why}") for key, why in lost.items() if key not in known]
    return rows


def _last_log(cell: PlannedCell, folder: RunsFolder) -> str:
    """The newest log of those of its stages that are not built."""
    logs = [folder.logs / f"{log}.log" for name, log in cell.stages if stored(folder.root, name) is None]
    found = [path for path in logs if path.is_file()]
    return str(max(found, key=lambda path: path.stat().st_mtime)) if found else ""


def summary(rows: list[Row]) -> str:
    """``12 done, 1 at work, 3 waiting``."""
    words = [row.state.split(",")[0] for row in rows]
    return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words)) or "no cells"


def main() -> None:
    """Entry point of the console script."""
    start(app, "ablations.status")


if __name__ == "__main__":
    main()
