"""``python -m ablations.reproduce RUN_ID``: build a recorded cell once more, from its recorded config, and compare the numbers.

On the same CPU software every number must be equal to the last bit; elsewhere (another processor, library, version of the code,
a GPU) within ``--tolerance``. Builds in a stage store of its own inside the runs folder, so that nothing stored is taken for
a repetition; what is installed with the package (`rrpo.pipeline.frozen`) is the same everywhere, and is taken as it is.

Exit status: 0 when the numbers are equal, 1 when they differ or the cell cannot be built, 2 for bad input, 130 when stopped by
Ctrl-C; the same command then goes on.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ablations import equality
from ablations.commands import Plugin, Workers, refusing, say, start
from ablations.equality import Comparison
from ablations.errors import InputError
from ablations.execution import environment
from ablations.execution.building import build
from ablations.execution.cell_file import CELL_FILE, read_cell
from ablations.execution.estimate import Estimator
from ablations.execution.request import worker_count
from ablations.execution.runs_folder import RunsFolder, check
from ablations.run import WIDTH
from ablations.tracking import plugin_files
from ablations.tracking.reader import Store
from ablations.tracking.records import TAG_CELL_HASH, TAG_COMPLETE, Record
from rrpo.pipeline import stages
from rrpo.pipeline.cell import Cell, collect
from rrpo.pipeline.stages import MARKER, Stage, place, walk

TOLERANCE = 0.05
"""Default: five points of a rate; of numbers above 1, five per cent. Sampling amplifies a last bit, so it is wide."""
SOFTWARE = ("version", "source", "python", "torch", "threads", "processor", "device", "gpu")
"""What a stage's marker says of how it was built."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def command(
    run_id: Annotated[str, typer.Argument(help="The MLflow run of a finished cell.")],
    plugin: Plugin = None,
    runs_dir: Annotated[Path, typer.Option(help="The runs folder that it was recorded with.")] = Path("runs"),
    device: Annotated[str, typer.Option(help="recorded, auto, cpu or cuda.")] = "recorded",
    workers: Workers = None,
    reuse_world: Annotated[
        bool,
        typer.Option("--reuse-world", help="Take what all seeds share (codec, judges, base policy) as it is stored."),
    ] = False,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference where bits cannot be equal: absolute, relative above 1.")
    ] = TOLERANCE,
) -> None:
    """Re-run a recorded cell and compare its numbers."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)

    with refusing():
        folder = check(runs_dir)
        record, cell = recorded(folder, run_id)
        machine = environment.resolve_device(
            _environment(record).get("device", "auto") if device == "recorded" else device
        )
        count = worker_count(workers, machine)
        scratch = RunsFolder(folder.root / "reproduced" / record.cell_hash[:12])
        if reuse_world:
            say(
                console,
                f"{share_world(cell, folder.root, scratch.root)} stages of the world are taken as they are stored.",
            )
    if installed := sum((stages.LAYER / stage.folder / MARKER).is_file() for stage in walk(*cell.stages.values())):
        say(console, f"{installed} stages are installed with the package and are taken as they are.")
    if cell.hash != record.cell_hash:
        say(
            console,
            f"This code names the cell otherwise ({cell.hash[:8]}, recorded {record.cell_hash[:8]}): stages have new versions.",
        )
    if gone := sorted(record.optional - cell.optional.keys()):
        say(console, f"Not compared, since what measures it is not installed here: {', '.join(gone)}.")
    if failures := build(list(roots(record, cell).values()), scratch, Estimator(folder.root, machine), count, console):
        say(console, "The cell could not be built again:")
        for title, reason in failures.items():
            say(console, f"  {title}: {reason}")
        raise typer.Exit(1)
    found = compare(cell, record, folder.root, scratch.root)
    for line in found.lines(tolerance):
        say(console, line)
    if found.equal(tolerance):
        shutil.rmtree(scratch.root, ignore_errors=True)
    else:
        say(console, f"What was built is kept in {scratch.root}")
    raise typer.Exit(0 if found.equal(tolerance) else 1)


def recorded(folder: RunsFolder, run_id: str) -> tuple[Record, Cell]:
    """A finished cell's record and the cell it names.

    Raises InputError when there is no such run, it is not complete, or this code cannot make the cell.
    """
    if not folder.exists:
        raise InputError("there is no runs folder", got=folder.root, fix="give --runs-dir one that a run made")
    record = Store(folder).record(run_id)
    if record.tags.get(TAG_COMPLETE) != record.tags.get(TAG_CELL_HASH):
        raise InputError("the run is not complete", got=run_id, fix="give the id of a finished cell")
    plugin_files.require([record])
    path = record.folder / CELL_FILE
    if not path.is_file():
        fix = "reproduce it with the code of its commit (tag git_sha), or run the grid again with this code"
        raise InputError(f"the run has no {CELL_FILE}, so it was recorded by an older version", got=run_id, fix=fix)
    cell = read_cell(path.read_text())
    for split, manifest in cell.profile.manifests.items():
        if not Path(manifest.path).is_file():
            raise InputError(
                f"the manifest of split {split} is gone", got=manifest.path, fix="put it back where it was"
            )
    return record, cell


def roots(record: Record, cell: Cell) -> dict[str, Stage]:
    """The stages that make a cell's record, with the optional ones whose results it holds and that can be built here."""
    return cell.stages | {role: stage for role, stage in cell.optional.items() if role in record.optional}


def share_world(cell: Cell, store: Path, scratch: Path) -> int:
    """Link the stored stages that no seed redraws into the scratch store; how many."""
    other = replace(cell, seed=cell.seed + 1)
    shared = {stage.key for stage in walk(*other.stages.values())}
    count = 0
    for stage in walk(*cell.stages.values()):
        if stage.key in shared and stage.done(store):
            target = place(scratch, stage.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                target.symlink_to(stage.path(store), target_is_directory=True)
            count += 1
    return count


def compare(cell: Cell, record: Record, store: Path, scratch: Path) -> Comparison:
    """The record's numbers beside those of the scratch store."""
    wanted = roots(record, cell)
    scalars, files = collect(wanted, scratch)
    numbers = equality.scalars(record.scalars, scalars) + equality.tables(record.folder, files)
    if record.optional - wanted.keys():  # those numbers were never asked for here
        numbers = [number for number in numbers if not math.isnan(number.rebuilt)]
    software: dict[str, tuple[str, str]] = {}
    device = "cpu"
    for role, stage in [
        *((role, s) for role, s in wanted.items()),
        *(("", s) for s in walk(*wanted.values())),
    ]:
        now = _marker([stage.path(scratch) / MARKER])
        if not now:  # below a stage that is installed or shared, and so not needed
            continue
        device = "cuda" if now["device"] == "cuda" else device
        before = _marker([record.folder / role / MARKER if role else Path(), stage.path(store) / MARKER])
        if before:
            software |= _unlike(before, now, SOFTWARE, f"{stage.name}: ")
    here, there = environment.describe(device), _environment(record)
    software |= _unlike(there, here, [*environment.PACKAGES, "python"], "")
    return Comparison(numbers, software, device)


def _marker(places: Iterable[Path]) -> dict[str, Any]:
    return next((dict(json.loads(path.read_text())) for path in places if path.is_file()), {})


def _unlike(
    before: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str], where: str
) -> dict[str, tuple[str, str]]:
    pairs = {name: (str(before.get(name, "not recorded")), str(now.get(name, "not recorded"))) for name in names}
    return {f"{where}{name}": pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _environment(record: Record) -> dict[str, str]:
    path = record.folder / "environment.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def main() -> None:
    """Entry point of the console script."""
    start(app, "ablations.reproduce")


if __name__ == "__main__":
    main()
