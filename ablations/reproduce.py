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
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import ArrayLike, NDArray

from ablations.commands import Workers, end_if_failed, print_line, terminal
from ablations.execution import environment
from ablations.execution.building import Builder
from ablations.tracking import plugin_files
from ablations.tracking.cell_file import CELL_FILE, read_cell
from ablations.tracking.reader import Store
from ablations.tracking.records import ENVIRONMENT_FILE, TAG_CELL_HASH, TAG_COMPLETE, Record
from ablations.tracking.runs_folder import RunsFolder, check
from rrpo.commands import Plugin, program
from rrpo.errors import InputError
from rrpo.experiment.cell import Cell, collect
from rrpo.pipeline import stages
from rrpo.pipeline.executor import MARK
from rrpo.pipeline.stages import MARKER, Stage, place, walk

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 0.05
"""Default tolerance: five points of a rate, or five percent of a number above 1. It is wide because sampling amplifies
differences in the last bit."""
SOFTWARE = ("version", "source", "python", "torch", "threads", "processor", "device", "gpu", MARK)
"""Fields of a stage's marker that describe how it was built."""
SINGLY = {MARK: "single"}
"""A marker without an executor is that of a stage that was built singly, in float32."""
TIMES = "seconds"
"""Prefix of the names of durations, which are not compared because they differ between runs."""
OPTIONS = "options.json"
"""File in the scratch store with the options of the call that fills it."""
SHOWN = 20
"""Maximum number of differences that are printed."""
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
    say = partial(print_line, console)
    folder = check(runs_dir)
    record, cell = recorded(folder, run_id)
    device_name = _json(record.folder / ENVIRONMENT_FILE).get("device", "auto") if device == "recorded" else device
    builder = Builder.of(device_name, workers, runs_dir, console)
    scratch = RunsFolder(folder.root / "reproduced" / record.cell_hash[:12])
    resume_only({"device": builder.device, "reuse_world": reuse_world}, scratch.root)
    if reuse_world:
        shared = share_world(cell, folder.root, scratch.root)
        say(f"{shared} stages of the world are reused from the runs folder.")
    if installed := sum((stages.LAYER / stage.folder / MARKER).is_file() for stage in walk(*cell.stages.values())):
        say(f"{installed} stages are installed with the package and are reused.")
    if cell.hash != record.cell_hash:
        then, now = record.cell_hash[:8], cell.hash[:8]
        say(f"The cell's hash is {now} here, {then} in the record: stages have new versions.")
    if missing := sorted(record.optional - cell.optional.keys()):
        say(f"Not compared, because the required packages are not installed here: {', '.join(missing)}.")
    if failures := builder.build(list(roots(record, cell).values()), scratch):
        say("The cell could not be built again:")
        end_if_failed(failures, console)
    numbers, built_on, changes = compare(cell, record, folder.root, scratch.root)
    exact = not changes and built_on == "cpu"  # the same software on the CPU gives the same bits
    equal, lines = verdict(numbers, 0.0 if exact else tolerance)
    same = ["Environment: the same software and processor as recorded."]
    for line in (*(["Environment:", *changes] if changes else same), *lines):
        say(line)
    if equal:
        shutil.rmtree(scratch.root, ignore_errors=True)
    else:  # the next call builds again
        earlier = [
            int(path.name.rpartition("-")[2]) for path in scratch.root.parent.glob(f"{scratch.root.name}-differs-*")
        ]
        kept = scratch.root.rename(f"{scratch.root}-differs-{max(earlier, default=0) + 1}")
        say(f"The rebuilt stages are kept in {kept}")
    raise typer.Exit(0 if equal else 1)


def resume_only(options: Mapping[str, object], scratch: Path) -> None:
    """Remove what an interrupted call left in the scratch store, unless it had the same options, and note them there."""
    note = scratch / OPTIONS
    if _json(note) != options:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        note.write_text(json.dumps(options))


def recorded(folder: RunsFolder, run_id: str) -> tuple[Record, Cell]:
    """Return the record of a finished cell, and the cell itself.

    Raises:
        InputError: The run does not exist or is not complete, or this code cannot make the cell.
    """
    folder.require()
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


def size(recorded: ArrayLike, rebuilt: ArrayLike) -> NDArray[np.float64]:
    """Return |rebuilt - recorded| of ``[N]`` numbers, divided by |recorded| where that is above 1.

    It is 0 if both are NaN (not measured), and infinite if exactly one of them is.
    """
    a, b = np.asarray(recorded, float), np.asarray(rebuilt, float)
    with np.errstate(invalid="ignore"):
        distance = np.nan_to_num(np.abs(b - a) / np.maximum(1.0, np.abs(a)), nan=math.inf, posinf=math.inf)
    return np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, distance)


def results(scalars: Mapping[str, float], files: Mapping[str, Path]) -> dict[str, pd.Series]:
    """Return all results of a cell except durations: finite scalars by name, number of rows and columns of tables.

    Args:
        scalars: The cell's scalars.
        files: Artifact name -> file; those that are not tables are ignored.
    """
    import pandas as pd

    series = {name: pd.Series([value]) for name, value in scalars.items() if math.isfinite(value)}
    for name, path in files.items():
        if name.endswith(".parquet"):
            table = pd.read_parquet(path)
            series[f"{name}: rows"] = pd.Series([float(len(table))])
            series |= {f"{name}: {column}": table[column] for column in table.columns}
    return {name: values for name, values in series.items() if not name.split(": ")[-1].startswith(TIMES)}


def differences(recorded: Mapping[str, pd.Series], rebuilt: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Compare the `results` of two builds: columns ``recorded, rebuilt, size``, indexed by the name of the result.

    Of each column of a table, the row with the largest difference is given; of text, the number of rows that differ. Columns of
    tables with different numbers of rows are not compared. A result that only one build has is NaN in the other.
    """
    import pandas as pd

    rows = {
        name: [0.0 if name in build else math.nan for build in (recorded, rebuilt)]
        for name in recorded.keys() ^ rebuilt.keys()
    }
    for name in recorded.keys() & rebuilt.keys():
        old, new = recorded[name], rebuilt[name]
        if len(old) != len(new) or not len(old):
            continue
        if "O" in (old.dtype.kind, new.dtype.kind):
            rows[f"{name}, rows unlike"] = [0.0, float((old.astype(str) != new.astype(str)).sum())]
        else:
            largest = int(size(old, new).argmax())
            rows[name] = [float(old.iloc[largest]), float(new.iloc[largest])]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["recorded", "rebuilt"]).sort_index()
    return table.assign(size=size(table["recorded"], table["rebuilt"]))


def verdict(numbers: pd.DataFrame, tolerance: float) -> tuple[bool, list[str]]:
    """Return whether all numbers of `differences` agree within the tolerance, and readable lines: differences and verdict."""
    unequal = numbers[numbers["size"] > 0].sort_values("size", ascending=False, kind="stable")
    lines = [f"{len(unequal)} of {len(numbers)} numbers differ; recorded -> now (difference):"] if len(unequal) else []
    lines += [
        f"  {row.Index}: {row.recorded:.6g} -> {row.rebuilt:.6g} ({row.size:.2g})"
        for row in unequal[:SHOWN].itertuples()
    ]
    lines += [f"  ... and {len(unequal) - SHOWN} more"] if len(unequal) > SHOWN else []
    equal = bool((numbers["size"] <= tolerance).all())
    required = f"within {tolerance:g} (absolute; relative above 1)" if tolerance else "to the last bit"
    how = "bit-equal" if not len(unequal) else f"equal {required}"
    word, relation = ("REPRODUCED", how) if equal else ("NOT REPRODUCED", f"required to be equal {required}")
    return equal, [*lines, f"{word}: {len(numbers)} numbers compared, {relation}."]


def compare(cell: Cell, record: Record, store: Path, scratch: Path) -> tuple[pd.DataFrame, str, list[str]]:
    """Compare the record with the results in the scratch store.

    Returns `differences`, the device of the second build, and the differences between the two builds' environments.
    """
    compared = roots(record, cell)
    scalars, files = collect(compared, scratch)
    tables = {path.relative_to(record.folder).as_posix(): path for path in record.folder.rglob("*.parquet")}
    numbers = differences(results(record.scalars, tables), results(scalars, files))
    if record.optional - compared.keys():  # drop the numbers of optional stages that are not built here
        numbers = numbers.dropna(subset="rebuilt")
    then: dict[str, Any] = {}
    now: dict[str, Any] = {}
    device = "cpu"
    by_role = [*compared.items(), *(("", stage) for stage in walk(*compared.values()))]
    for role, stage in by_role:
        rebuilt = _json(stage.path(scratch) / MARKER)
        recorded = _json(record.folder / role / MARKER) or _json(stage.path(store) / MARKER)
        if rebuilt:  # otherwise an input of an installed or shared stage
            device = "cuda" if rebuilt["device"] == "cuda" else device
        if rebuilt and recorded:
            now |= {f"{stage.name}: {field}": (SINGLY | rebuilt).get(field) for field in SOFTWARE}
            then |= {f"{stage.name}: {field}": (SINGLY | recorded).get(field) for field in SOFTWARE}
    described, environment_then = environment.describe(device), _json(record.folder / ENVIRONMENT_FILE)
    for name in (*environment.PACKAGES, "python"):
        then[name], now[name] = environment_then.get(name), described.get(name)
    return (
        numbers,
        device,
        [
            f"  {name}: {then[name] or 'not recorded'} when recorded, {now[name] or 'not recorded'} now"
            for name in sorted(then)
            if str(then[name]) != str(now[name])
        ],
    )


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


if __name__ == "__main__":
    main()
