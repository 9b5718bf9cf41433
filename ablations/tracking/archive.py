"""Save a grid's runs as files that fit into a repository, and restore them into another runs folder.

    archive/GRID/seed-101.zip      the cells of a seed, complete or failed, and its transfer matrix
    archive/GRID/invocations.zip   which arms and seeds each invocation planned

A zip file holds runs in the outbox's form (`ablations.tracking.outbox`): ``KEY/entry.json`` and ``KEY/artifacts/...``. Left out
is what no table, figure or test needs: audio and speech tokens, the greater part of a run, and what tells about the user and the
machine: logs, user and process. Equal runs give equal bytes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ablations.errors import InputError
from ablations.tracking import recorder, records
from ablations.tracking.outbox import ARTIFACTS, ENTRY, Entry
from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import RunsFolder

INVOCATIONS = "invocations"
"""Stem of the file with the runs that belong to no seed."""
KINDS = ("cell", "parent", "transfer")
"""Kinds of runs that are saved (`records.TAG_KIND`). Reports are made from them; a listening test consists of audio."""
LEFT_OUT = ("audio/", "samples.npz", "log.txt")
"""Artifacts that are not saved: beginnings of their paths."""
PERSONAL = ("owner_", "mlflow.user")
"""Tags that are not saved: beginnings of their names."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every member: the earliest that a zip file can hold."""
Members = dict[str, bytes]
"""Path in a zip file -> content."""


@dataclass(frozen=True)
class Saved:
    """One file of an archive."""

    path: Path
    """The file."""
    runs: int
    """Number of runs in it."""
    new: int
    """Number of them that this call saved or restored."""


def save(store: Store, grid: str, archive: Path) -> Iterator[Saved]:
    """Write a grid's runs into ``archive/GRID``, one file after another. Runs that are only in the archive stay there.

    Raises:
        InputError: A file of the archive is damaged.
    """
    groups: dict[str, list[Any]] = defaultdict(list)
    for run in _runs(store, grid):
        seed = run.data.tags.get(records.TAG_SEED)
        groups[f"seed-{seed}" if seed else INVOCATIONS].append(run)
    for stem, runs in sorted(groups.items()):
        path = archive / grid / f"{stem}.zip"
        before = _read(path) if path.is_file() else {}
        after = before | {run.data.tags[records.TAG_ENTRY]: _members(store, run) for run in runs}
        if after != before:
            _write(path, after)
        yield Saved(path, len(after), sum(members != before.get(key) for key, members in after.items()))


def restore(folder: RunsFolder, archive: Path) -> Iterator[Saved]:
    """Record the runs in ``archive``, which `save` wrote, one file after another. Runs that are recorded are not changed.

    Raises:
        InputError: There is no archive, or a file of it is damaged; files before it are restored.
        UnavailableError: The store does not answer.
    """
    paths = sorted(archive.rglob("*.zip"))
    if not paths:
        fix = "give the folder that python -m ablations.archive save wrote"
        raise InputError("there is no archive of runs in that folder", got=archive, fix=fix)
    for path in paths:
        members = _read(path)
        entries = [(_entry(path, files), files) for files in members.values()]
        for grid in sorted({entry.tags[records.TAG_GRID] for entry, _ in entries}):
            recorder.create(folder, grid)
        store = Store(folder)
        grids = {entry.tags[records.TAG_GRID] for entry, _ in entries}
        known = {run.data.tags[records.TAG_ENTRY] for grid in grids for run in _runs(store, grid)}
        new = [(entry, files) for entry, files in entries if entry.key not in known]
        for entry, files in new:
            _put(store, entry, files)
        store.replay.flush(force=True)
        if waiting := store.replay.waiting():
            raise InputError("the tracking store did not accept all runs", got=waiting, fix="restore the archive again")
        yield Saved(path, len(entries), len(new))


def _runs(store: Store, grid: str) -> list[Any]:
    """Return the runs of a grid that count in reports: unfinished attempts at cells do not."""
    runs = [run for kind in KINDS for run in store.runs(grid, kind)]
    ends = {records.TAG_COMPLETE, records.TAG_FAILED}
    return [run for run in runs if run.data.tags[records.TAG_KIND] != "cell" or ends & run.data.tags.keys()]


def _members(store: Store, run: Any) -> Members:
    """Return the files of one run by their names below its key."""
    tags = {name: value for name, value in run.data.tags.items() if not name.startswith(PERSONAL)}
    complete = tags.pop(records.TAG_COMPLETE, "")
    key, kind, grid = tags.pop(records.TAG_ENTRY), tags[records.TAG_KIND], tags[records.TAG_GRID]
    inputs = store.client.get_run(run.info.run_id).inputs
    entry = Entry(
        key=key,
        experiment=grid if kind == "cell" else f"{records.EXPERIMENT_ABOUT}{grid}",
        name=run.info.run_name,
        started=int(run.info.start_time),
        status="KILLED" if run.info.status == "RUNNING" else run.info.status,
        tags=tags,
        params=dict(run.data.params),
        metrics={name: value for name, value in run.data.metrics.items() if "/" not in name},
        datasets={each.dataset.name: each.dataset.digest for each in inputs.dataset_inputs},
        cell=tags.get(records.TAG_CELL_HASH, ""),
        complete=bool(complete),
    )
    folder = store.artifacts_of(run)
    artifacts = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    kept = {name: path.read_bytes() for name, path in artifacts.items() if not name.startswith(LEFT_OUT)}
    text = json.dumps(dataclasses.asdict(entry))
    return {ENTRY: text.encode()} | {f"{ARTIFACTS}/{name}": content for name, content in kept.items()}


def _entry(path: Path, files: Members) -> Entry:
    """Return the entry of one run of the archive's file ``path``."""
    try:
        return Entry(**json.loads(files[ENTRY]))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _put(store: Store, entry: Entry, files: Members) -> None:
    """Put a run of an archive into the outbox."""
    with TemporaryDirectory() as temporary:
        artifacts = {}
        for number, (name, content) in enumerate(files.items()):
            if name != ENTRY:
                artifacts[name.removeprefix(f"{ARTIFACTS}/")] = place = Path(temporary) / str(number)
                place.write_bytes(content)
        store.replay.outbox.put(entry, artifacts)


def _read(path: Path) -> dict[str, Members]:
    """Return key -> files of each run in a file."""
    runs: dict[str, Members] = defaultdict(dict)
    try:
        with zipfile.ZipFile(path) as file:
            for member in file.namelist():
                key, _, name = member.partition("/")
                runs[key][name] = file.read(member)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from error
    return dict(runs)


def _write(path: Path, runs: dict[str, Members]) -> None:
    """Write runs atomically, in an order and with times that depend on nothing else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for key, members in sorted(runs.items()):
            for name, content in sorted(members.items()):
                file.writestr(zipfile.ZipInfo(f"{key}/{name}", EPOCH), content, zipfile.ZIP_DEFLATED, 9)
    os.replace(partial, path)


def _damaged(path: Path, error: Exception) -> InputError:
    fix = "restore the file from a copy, or remove it and save the runs again"
    return InputError("a file of the archive is damaged", got=f"{path}: {error}", fix=fix)
