"""``python -m ablations.transfer --grid full``: measure the cross-RM transfer matrix of each seed of a finished grid.

Each arm's last samples are evaluated by the reward models of all arms on the same seed. The matrix depends on which arms are
compared, so it does not belong to a cell: it is one stage per seed, built in the same store as `ablations.run` and recorded as a
separate run, which `reports.run` reads. Recorded seeds are not measured again.

Exit status: 0 if all seeds are measured, 1 if one failed, 2 for invalid input, 130 after Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ablations.commands import Device, OfProfile, RunsDir, Workers, print_line, terminal
from ablations.execution import environment
from ablations.execution.building import Builder
from ablations.execution.jobs import is_stored
from ablations.tracking import plugin_files, recorder, records
from ablations.tracking.cell_file import CELL_FILE, read_cell
from ablations.tracking.reader import Store
from ablations.tracking.recorder import Tracker
from ablations.tracking.records import INSTALLED, Record
from ablations.tracking.runs_folder import RunsFolder
from ablations.tracking.source_version import git_state
from rrpo.commands import Plugin, program
from rrpo.errors import InputError, choose
from rrpo.experiment import measurements
from rrpo.experiment.cell import Cell
from rrpo.pipeline.stages import Stage

app, main = program("ablations.transfer")


@app.command()
def command(
    grid: Annotated[str, typer.Option(help="Grid whose finished cells are compared.")],
    profile: OfProfile = None,
    plugin: Plugin = None,
    device: Device = "auto",
    workers: Workers = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Measure how far each arm's gain transfers to the other arms' reward models."""
    console = terminal()
    builder = Builder.of(device, workers, runs_dir, console)
    folder = builder.folder
    groups = comparable(folder, grid, profile)
    recorder.create(folder, grid)
    stages = [matrix(cells) for cells in groups]
    failures = builder.build(stages)
    tracker = Tracker(folder, grid, git_state(), environment.describe(builder.device))
    recorded = {run.data.tags[records.TAG_ENTRY] for run in Store(folder).runs(grid, "transfer")}
    for cells, stage in zip(groups, stages, strict=True):
        if stage.done(folder.root) and tracker.key_of("transfer", stage.key) not in recorded:
            record(tracker, cells, stage)
    for name, reason in failures.items():
        print_line(console, f"not measured: {name}: {reason}")
    arms = " to ".join(map(str, sorted({min(map(len, groups)), max(map(len, groups))})))
    console.print(f"{len(stages) - len(failures)} of {len(stages)} seeds are measured, {arms} arms each.")
    if waiting := tracker.waiting():
        print_line(console, waiting)
    console.print(f"See it: python -m reports.run --grid {grid} --runs-dir {runs_dir}", soft_wrap=True)
    raise typer.Exit(int(bool(failures)))


def comparable(folder: RunsFolder, grid: str, profile: str | None = None) -> list[list[Cell]]:
    """Return the finished cells with policies in a grid's installed world, one list per seed with at least two of them.

    Without cells in the installed world, the world of the newest cell is taken.

    Raises:
        InputError: The grid is unknown, was run on several profiles and none is given, or has no seed that can be compared.
    """
    fix = f"run it first: python -m ablations.run --grid {grid} --runs-dir {folder.root}"
    if not folder.exists:
        raise InputError("there is no runs folder at that path", got=folder.root, fix=fix)
    store = Store(folder)
    records = store.records(choose("grid with records", grid, store.grids()))
    plugin_files.require(records)
    if profile is not None:
        choose("profile of this grid", profile, sorted({record.profile for record in records}))
    selected = [record for record in records if profile in (None, record.profile)]
    if len(profiles := sorted({record.profile for record in selected})) > 1:
        fix = "choose one with --profile"
        raise InputError("the grid was run on several profiles", got=", ".join(profiles), fix=fix)
    groups: dict[str, dict[int, dict[str, Cell]]] = {}
    for record in sorted(selected, key=lambda record: (record.world == INSTALLED, record.recorded)):
        # reinserted last, so that the installed or else the newest world is the last one
        by_seed = groups.pop(record.world_hash, {})
        groups[record.world_hash] = by_seed
        if (cell := _cell_of(record)) is not None and cell.policy and is_stored(cell, folder.root):
            by_seed.setdefault(record.seed, {})[record.label] = cell
    chosen = [*groups.values()][-1] if groups else {}
    per_seed = [list(cells.values()) for _, cells in sorted(chosen.items()) if len(cells) > 1]
    if not per_seed:
        raise InputError(
            "no seed of the grid has two finished arms with policies that this version of the code built in this folder",
            got=f"{len(selected)} finished cells",
            fix=fix,
        )
    return per_seed


def _cell_of(record: Record) -> Cell | None:
    """Return the cell of a record; None if another version of the code made it."""
    path = record.folder / CELL_FILE
    try:
        cell = read_cell(path.read_text(encoding="utf-8")) if path.is_file() else None
    except InputError:
        return None
    return cell if cell is not None and cell.hash == record.cell_hash else None


def matrix(cells: Sequence[Cell]) -> Stage:
    """Return the stage that measures the transfer matrix of one seed's cells."""
    return measurements.transferred(cells[0].profile, {cell.label: cell.arm for cell in cells}, cells[0].seed)


def record(tracker: Tracker, cells: Sequence[Cell], stage: Stage) -> None:
    """Record a transfer matrix in MLflow: the table as an artifact, the compared cells as params, two means as metrics."""
    import pandas as pd

    path = stage.path(tracker.folder.root) / records.TRANSFER_FILE
    table = pd.read_parquet(path)
    diagonal = table["samples_of"] == table["judged_by"]
    metrics = {
        "own_accuracy": float(table.loc[diagonal, "accuracy"].mean()),
        "other_accuracy": float(table.loc[~diagonal, "accuracy"].mean()),
    }
    tags: Mapping[str, str] = {
        records.TAG_PROFILE: cells[0].profile.name,
        records.TAG_WORLD_HASH: cells[0].world_hash,
        records.TAG_SEED: str(cells[0].seed),
    }
    params = {f"{records.TRANSFER_CELL}{cell.label}": cell.hash for cell in cells}
    tracker.record("transfer", str(stage), tags, params, metrics, {path.name: path}, key=stage.key)


if __name__ == "__main__":
    main()
