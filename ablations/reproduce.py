"""``python -m ablations.reproduce RUN_ID``: build a recorded cell again from its recorded config and compare the numbers.

With the same software on a CPU, every number must be equal to the last bit; otherwise (another processor, library or version of
the code, or a GPU) within ``--tolerance``. The cell is built in a separate stage store inside the runs folder, so that stored
results are not reused. Stages installed with the package (`rrpo.experiment.frozen`) are reused, because they are the same
everywhere.

Exit status: 0 if the numbers are equal, 1 if they differ or the cell cannot be built, 2 for invalid input, 130 after Ctrl-C (the
same command then resumes).
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ablations import equality
from ablations.commands import Plugin, Workers, end_if_failed, exit_on_input_error, print_line, program, terminal
from ablations.equality import Comparison
from ablations.errors import InputError
from ablations.execution import environment
from ablations.execution.building import Builder
from ablations.tracking import plugin_files
from ablations.tracking.cell_file import CELL_FILE, read_cell
from ablations.tracking.reader import Store
from ablations.tracking.records import TAG_CELL_HASH, TAG_COMPLETE, Record
from ablations.tracking.runs_folder import RunsFolder, check
from rrpo.experiment.cell import Cell, collect
from rrpo.pipeline import stages
from rrpo.pipeline.stages import MARKER, Stage, place, walk

TOLERANCE = 0.05
"""Default tolerance: five points of a rate, or five percent of a number above 1. It is wide because sampling amplifies
differences in the last bit."""
SOFTWARE = ("version", "source", "python", "torch", "threads", "processor", "device", "gpu")
"""Fields of a stage's marker that describe how it was built."""
app, main = program("ablations.reproduce")


@app.command()
def command(
    run_id: Annotated[str, typer.Argument(help="Id of the MLflow run of a finished cell.")],
    plugin: Plugin = None,
    runs_dir: Annotated[Path, typer.Option(help="Runs folder in which the cell was recorded.")] = Path("runs"),
    device: Annotated[
        str, typer.Option(help="Device: recorded (the one the cell was built on), auto, cpu or cuda.")
    ] = "recorded",
    workers: Workers = None,
    reuse_world: Annotated[
        bool,
        typer.Option(
            "--reuse-world", help="Reuse the stored stages that all seeds share (codec, judges, base policy)."
        ),
    ] = False,
    tolerance: Annotated[
        float,
        typer.Option(help="Largest difference if the software differs or a GPU is used: absolute, relative above 1."),
    ] = TOLERANCE,
) -> None:
    """Build a recorded cell again and compare the numbers."""
    console = terminal()

    with exit_on_input_error():
        folder = check(runs_dir)
        record, cell = recorded(folder, run_id)
        device_name = _environment(record).get("device", "auto") if device == "recorded" else device
        builder = Builder.of(device_name, workers, runs_dir, console)
        scratch = RunsFolder(folder.root / "reproduced" / record.cell_hash[:12])
        if reuse_world:
            print_line(
                console,
                f"{share_world(cell, folder.root, scratch.root)} stages of the world are reused from the runs folder.",
            )
    if installed := sum((stages.LAYER / stage.folder / MARKER).is_file() for stage in walk(*cell.stages.values())):
        print_line(console, f"{installed} stages are installed with the package and are reused.")
    if cell.hash != record.cell_hash:
        print_line(
            console,
            f"The cell's hash is {cell.hash[:8]} here, {record.cell_hash[:8]} in the record: stages have new versions.",
        )
    if missing := sorted(record.optional - cell.optional.keys()):
        print_line(
            console, f"Not compared, because the required packages are not installed here: {', '.join(missing)}."
        )
    if failures := builder.build(list(roots(record, cell).values()), scratch):
        print_line(console, "The cell could not be built again:")
        end_if_failed(failures, console)
    comparison = compare(cell, record, folder.root, scratch.root)
    for line in comparison.lines(tolerance):
        print_line(console, line)
    if comparison.equal(tolerance):
        shutil.rmtree(scratch.root, ignore_errors=True)
    else:
        print_line(console, f"The rebuilt stages are kept in {scratch.root}")
    raise typer.Exit(0 if comparison.equal(tolerance) else 1)


def recorded(folder: RunsFolder, run_id: str) -> tuple[Record, Cell]:
    """Return the record of a finished cell, and the cell itself.

    Raises:
        InputError: The run does not exist or is not complete, or this code cannot make the cell.
    """
    if not folder.exists:
        raise InputError("there is no runs folder", got=folder.root, fix="give --runs-dir a folder that a run created")
    record = Store(folder).record(run_id)
    if record.tags.get(TAG_COMPLETE) != record.tags.get(TAG_CELL_HASH):
        raise InputError("the run is not complete", got=run_id, fix="give the id of a finished cell")
    plugin_files.require([record])
    path = record.folder / CELL_FILE
    if not path.is_file():
        fix = "reproduce it with the code of its commit (tag git_sha), or run the grid again with this code"
        raise InputError(f"the run has no {CELL_FILE}, because an older version recorded it", got=run_id, fix=fix)
    cell = read_cell(path.read_text())
    for split, manifest in cell.profile.manifests.items():
        if not Path(manifest.path).is_file():
            raise InputError(
                f"the manifest of split {split} does not exist", got=manifest.path, fix="restore it at this path"
            )
    return record, cell


def roots(record: Record, cell: Cell) -> dict[str, Stage]:
    """Return the stages of a cell's record, including optional ones that the record contains and that can be built here."""
    return cell.stages | {role: stage for role, stage in cell.optional.items() if role in record.optional}


def share_world(cell: Cell, store: Path, scratch: Path) -> int:
    """Link the stored stages that do not depend on the seed into the scratch store, and return their number."""
    other_seed = replace(cell, seed=cell.seed + 1)
    shared = {stage.key for stage in walk(*other_seed.stages.values())}
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
    """Compare the record with the results in the scratch store."""
    compared = roots(record, cell)
    scalars, files = collect(compared, scratch)
    tables = {path.relative_to(record.folder).as_posix(): path for path in record.folder.rglob("*.parquet")}
    numbers = equality.compare(equality.results(record.scalars, tables), equality.results(scalars, files))
    if record.optional - compared.keys():  # drop the numbers of optional stages that are not built here
        numbers = [number for number in numbers if not math.isnan(number.rebuilt)]
    software: dict[str, tuple[str, str]] = {}
    device = "cpu"
    for role, stage in [
        *((role, s) for role, s in compared.items()),
        *(("", s) for s in walk(*compared.values())),
    ]:
        rebuilt = _marker([stage.path(scratch) / MARKER])
        if not rebuilt:  # an input of an installed or shared stage: it was not built
            continue
        device = "cuda" if rebuilt["device"] == "cuda" else device
        recorded = _marker([record.folder / role / MARKER if role else Path(), stage.path(store) / MARKER])
        if recorded:
            software |= _differing(recorded, rebuilt, SOFTWARE, f"{stage.name}: ")
    current, environment_then = environment.describe(device), _environment(record)
    software |= _differing(environment_then, current, [*environment.PACKAGES, "python"], "")
    return Comparison(numbers, software, device)


def _marker(paths: Iterable[Path]) -> dict[str, Any]:
    return next((dict(json.loads(path.read_text())) for path in paths if path.is_file()), {})


def _differing(
    recorded: Mapping[str, Any], current: Mapping[str, Any], names: Iterable[str], prefix: str
) -> dict[str, tuple[str, str]]:
    pairs = {name: (str(recorded.get(name, "not recorded")), str(current.get(name, "not recorded"))) for name in names}
    return {f"{prefix}{name}": pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _environment(record: Record) -> dict[str, str]:
    path = record.folder / "environment.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


if __name__ == "__main__":
    main()
