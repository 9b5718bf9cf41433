"""``python -m ablations.status --runs-dir runs``: show the state, builder, progress and log of every cell of every grid.

The command starts nothing. Like every command, it applies pending updates to the store first (`ablations.tracking.reader`).

Exit status: 0, or 2 for invalid input or a store that does not answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table as RichTable
from rich.text import Text

from ablations.commands import RunsDir, terminal
from ablations.execution.estimate import duration
from ablations.execution.planned import PlannedCell, read_plan
from ablations.tracking.reader import Store
from ablations.tracking.records import INSTALLED
from ablations.tracking.runs_folder import RunsFolder, check
from rrpo.commands import Plugin, program
from rrpo.errors import choose
from rrpo.pipeline.claims import Claims
from rrpo.pipeline.progress import progress_of
from rrpo.pipeline.stages import stored
from rrpo.profiles import title

app, main = program("ablations.status")


@dataclass(frozen=True)
class Row:
    """The status of one cell."""

    cell: str
    """``arm/seed``."""
    profile: str
    """Name of the profile, with the world if it is not the installed one; empty if unknown."""
    state: str
    """done, at work, waiting, or failed (why)."""
    owner: str = ""
    """The process that is building it."""
    age: str = ""
    """Time since it was recorded, or since its current stage was started."""
    step: str = ""
    """Last step of the stage that is being built."""
    log: str = ""
    """Log of that stage, or of the failed stage."""


@app.command()
def command(
    grid: Annotated[str | None, typer.Option(help="Show only this grid. Default: all grids in the folder.")] = None,
    plugin: Plugin = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Show every cell with its state, owner, age, last step and log."""
    console = terminal(170)
    folder = check(runs_dir)
    folder.require()
    store = Store(folder)
    names = store.grids()
    grids = names if grid is None else [choose("grid in this folder", grid, names)]
    statuses = {name: status(store, name) for name in grids}
    for name, rows in statuses.items():
        table = RichTable(title=f"grid {name}: {summary(rows)}", title_justify="left")
        for heading in ("cell", "profile", "state", "owner", "age", "last step", "log"):
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*map(Text, (row.cell, row.profile, row.state, row.owner, row.age, row.step, row.log)))
        console.print(table)
    if not grids:
        console.print("No grid has been run here.")


def status(store: Store, grid: str) -> list[Row]:
    """Return all cells that the grid's invocations planned here, then restored cells that they did not plan, and failed cells
    that newer plans have replaced."""
    folder = store.folder
    done, failures = store.states(grid)
    now = time.time()
    holders = Claims(folder.claims).holders()
    rows = []
    cells = read_plan(folder, grid)
    for cell in cells:
        name = (cell.name, title(cell.profile, cell.world))
        if record := done.get(cell.hash):
            rows.append(Row(*name, "done", age=duration(now - record.recorded / 1000)))
        elif building := [stage for stage in cell.stages if stage in holders]:
            stage = building[-1]  # inputs come first, so this prefers the cell's own stage over shared ones
            progress = progress_of(folder.root, stage)
            kind = stage.rpartition("-")[0]
            step = f"{kind} {progress.done} of {progress.total}" if progress else kind
            age = duration(now - progress.started) if progress else ""
            rows.append(Row(*name, "at work", str(holders[stage]), age, step, str(folder.logs / f"{stage}.log")))
        elif failure := failures.get(cell.hash):
            rows.append(Row(*name, f"failed, {failure}", log=_last_log(cell, folder)))
        else:
            rows.append(Row(*name, "waiting"))
    known = {cell.hash for cell in cells}
    planned = {(cell.name, title(cell.profile, cell.world)) for cell in cells}
    for record in done.values():
        name = (f"{record.label}/{record.seed}", title(record.profile, int(record.world or INSTALLED)))
        if record.cell_hash not in known and name not in planned:
            rows.append(Row(*name, "done", age=duration(now - record.recorded / 1000)))
    rows += [Row(f"cell {key[:8]}", "", f"failed, {failure}") for key, failure in failures.items() if key not in known]
    return rows


def _last_log(cell: PlannedCell, folder: RunsFolder) -> str:
    """Return the newest log among the cell's stages that are not built; empty if there is none."""
    logs = [folder.logs / f"{stage}.log" for stage in cell.stages if stored(folder.root, stage) is None]
    existing = [path for path in logs if path.is_file()]
    return str(max(existing, key=lambda path: path.stat().st_mtime)) if existing else ""


def summary(rows: list[Row]) -> str:
    """Return the number of cells in each state: ``12 done, 1 at work, 3 waiting``."""
    states = [row.state.split(",")[0] for row in rows]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "no cells"


if __name__ == "__main__":
    main()
