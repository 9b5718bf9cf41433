"""Save a grid's runs as files that fit into a repository, and restore them into another runs folder.

    archive/GRID/seed-101.zip      the cells of a seed, complete or failed, and its transfer matrix
    archive/GRID/invocations.zip   which arms and seeds each invocation planned

A zip file holds runs in the outbox's form (`ablations.tracking.outbox`): ``KEY/entry.json`` and ``KEY/artifacts/...``. Left out
is what no table, figure or test needs: audio and speech tokens, the greater part of a run, and what identifies the user and the
machine: logs, uncommitted changes, user, process, and the folders of paths. Equal runs give equal bytes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from filelock import FileLock

from ablations.tracking import recorder, records
from ablations.tracking.connection import answering
from ablations.tracking.outbox import ARTIFACTS, ENTRY, Entry
from ablations.tracking.reader import Store, require_artifacts
from ablations.tracking.run_files import files_in
from ablations.tracking.runs_folder import RunsFolder
from rrpo.errors import InputError

INVOCATIONS = "invocations"
"""Stem of the file with the runs that belong to no seed."""
KINDS = ("cell", "parent", "transfer")
"""Kinds of runs that are saved (`records.TAG_KIND`). Reports are made from them; a listening test consists of audio."""
LEFT_OUT = ("audio/", "samples.npz", "log.txt", "dirty.diff")
"""Artifacts that are not saved: beginnings of their paths."""
PERSONAL = ("owner_", "mlflow.user", "ended_by")
"""Tags that are not saved: beginnings of their names."""
FOLDERS = re.compile(r"""(?<=["'])/(?:[^"'\n]*/)?(?=[^/"'\n]*["'])|(?<![\w./:])/(?:[^\s/"']+/)+""")
"""Folders of an absolute path, in quotes or up to a space."""
MEMBER = re.compile(rf"(?P<key>[a-z]+-[0-9a-f]{{24}})/(?P<name>{ENTRY}|{ARTIFACTS}(/(?!\.\.?(/|$))[^/\\]+)+)")
"""Path of a member of a zip file."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every member: the earliest that a zip file can hold."""
WAIT = 60.0
"""Maximum seconds to wait while another process writes to the store."""
Members = Mapping[str, bytes]
"""The files of one run: name below its key -> content."""


@dataclass(frozen=True)
class Saved:
    """One file of an archive."""

    path: Path
    """The file."""
    runs: int
    """Number of runs in it."""
    new: int
    """Number of runs that this call saved or restored."""


def save(store: Store, grid: str, archive: Path) -> Iterator[Saved]:
    """Write a grid's runs into ``archive/GRID``, one file after another.

    A run in the archive is only replaced by a better state of it (`_better`), and several processes can save into one archive,
    so that nothing in an archive is lost.

    Raises:
        InputError: A file of the archive is damaged or cannot be written, or a complete run has lost its artifacts.
    """
    groups: dict[str, list[Any]] = defaultdict(list)
    for run in _runs(store, grid):
        seed = run.data.tags.get(records.TAG_SEED)
        groups[f"seed-{seed}" if seed else INVOCATIONS].append(run)
    for stem, runs in sorted(groups.items()):
        path = archive / grid / f"{stem}.zip"
        with _locked(path.parent):
            archived = _read(path) if path.is_file() else {}
            new: dict[str, Members] = {}
            for run in runs:
                entry = _entry_of(store, run)
                if entry.key not in archived or _better(entry, _entry(path, archived[entry.key])):
                    new[entry.key] = _members(store, run, entry)
            if new:
                _write(path, archived | new)
        yield Saved(path, len(archived | new), len(new))


def restore(folder: RunsFolder, archive: Path) -> Iterator[Saved]:
    """Record the runs in ``archive``, a folder or file that `save` wrote, one file after another.

    A recorded run is only changed if the archive has a better state of it (`_better`).

    Raises:
        InputError: There is no archive, or a file of it is damaged; files before it are restored.
        UnavailableError: The store does not answer.
    """
    paths = [archive] if archive.is_file() else sorted(archive.rglob("*.zip"))
    if not paths:
        fix = "give a folder or file that python -m ablations.archive save wrote"
        raise InputError("there is no archive of runs at that path", got=archive, fix=fix)
    store, recorded = Store(folder), dict[str, dict[str, Entry]]()
    for path in paths:
        archived = [(_entry(path, members), members) for members in _read(path).values()]
        for grid in sorted({entry.tags[records.TAG_GRID] for entry, _ in archived} - recorded.keys()):
            recorder.create(folder, grid)
            recorded[grid] = {run.data.tags[records.TAG_ENTRY]: _entry_of(store, run) for run in _runs(store, grid)}
        keys = []
        for entry, members in archived:
            known = recorded[entry.tags[records.TAG_GRID]].get(entry.key)
            if known is None or _better(entry, known):
                if known is not None and known.complete:
                    entry = recorder.addition(entry.experiment, entry.name, entry.cell, records.roles(entry.tags))
                _put(store, entry, members)
                keys.append(entry.key)
        store.replay.flush(force=True, wait=WAIT)
        if waiting := [key for key in keys if store.replay.outbox.place(key)]:
            got = f"{len(waiting)} of {len(keys)} in {path}: {'; '.join(store.replay.why) or 'another process writes to it'}"
            raise InputError("the tracking store did not accept all runs", got=got, fix="restore the archive again")
        yield Saved(path, len(archived), len(keys))


def _better(new: Entry, old: Entry) -> bool:
    """Return whether one state of a run replaces another: a complete cell one that failed, an end an earlier state, and more
    optional results fewer. Of two complete runs of a cell, made in different runs folders, the first one stays."""
    if new.complete and old.complete:
        return new.started == old.started and records.roles(new.tags) > records.roles(old.tags)
    if new.complete or old.complete or not new.cell:
        return (new.complete, new.status == "FINISHED") > (old.complete, old.status == "FINISHED")
    return new.started > old.started


def _runs(store: Store, grid: str) -> list[Any]:
    """Return the runs of a grid that count in reports: unfinished attempts at cells do not."""
    runs = [run for kind in KINDS for run in store.runs(grid, kind)]
    ends = {records.TAG_COMPLETE, records.TAG_FAILED}
    return [run for run in runs if run.data.tags[records.TAG_KIND] != "cell" or ends & run.data.tags.keys()]


def _entry_of(store: Store, run: Any) -> Entry:
    """Return the entry of a recorded run, without datasets."""
    tags = {name: value for name, value in sorted(run.data.tags.items()) if not name.startswith(PERSONAL)}
    complete = tags.pop(records.TAG_COMPLETE, "")
    key, kind, grid = tags.pop(records.TAG_ENTRY), tags[records.TAG_KIND], tags[records.TAG_GRID]
    return Entry(
        key=key,
        experiment=grid if kind == "cell" else f"{records.EXPERIMENT_ABOUT}{grid}",
        name=run.info.run_name,
        started=int(run.info.start_time),
        ended=int(run.info.end_time or run.info.start_time),
        status="KILLED" if run.info.status == "RUNNING" else run.info.status,
        tags={name: without_folders(value) for name, value in tags.items()},
        params={name: without_folders(value) for name, value in run.data.params.items()},
        metrics={name: value for name, value in run.data.metrics.items() if "/" not in name},
        cell=tags.get(records.TAG_CELL_HASH, ""),
        complete=bool(complete),
    )


def _members(store: Store, run: Any, entry: Entry) -> dict[str, bytes]:
    """Return the files of one run by their names below its key."""
    with answering(store.folder):
        inputs = store.client.get_run(run.info.run_id).inputs
    datasets = sorted((each.dataset.name, each.dataset.digest) for each in inputs.dataset_inputs)
    entry = dataclasses.replace(entry, datasets=dict(datasets))
    folder = store.artifacts_of(run)
    if entry.cell:
        require_artifacts(lambda: folder, f"{entry.name}, run {run.info.run_id}")
    contents = {name: path.read_bytes() for name, path in files_in(folder).items() if not name.startswith(LEFT_OUT)}
    for name, content in contents.items():
        if name.endswith(".json"):
            contents[name] = without_folders(content.decode()).encode()
    text = json.dumps(dataclasses.asdict(entry))
    return {ENTRY: text.encode()} | {f"{ARTIFACTS}/{name}": content for name, content in contents.items()}


def without_folders(text: str) -> str:
    """Return a text in which absolute paths are reduced to their last component."""
    return FOLDERS.sub("", text)


def _entry(path: Path, members: Members) -> Entry:
    """Return the entry of one run of the archive's file ``path``."""
    try:
        entry = Entry(**json.loads(members[ENTRY]))
        _ = entry.tags[records.TAG_GRID]
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    return entry


def _put(store: Store, entry: Entry, members: Members) -> None:
    """Put a run of an archive into the outbox."""
    try:
        with TemporaryDirectory() as temporary:
            artifacts = {}
            for number, (name, content) in enumerate(members.items()):
                if name != ENTRY:
                    artifacts[name.removeprefix(f"{ARTIFACTS}/")] = place = Path(temporary) / str(number)
                    place.write_bytes(content)
            store.replay.outbox.put(entry, artifacts)
    except OSError as error:
        fix = f"free space in {store.folder.root} and {gettempdir()}, then restore the archive again; restored runs are kept"
        raise InputError("the runs cannot be restored", got=error, fix=fix) from error


def _read(path: Path) -> dict[str, Members]:
    """Return key -> files of each run in a file."""
    runs: dict[str, dict[str, bytes]] = defaultdict(dict)
    try:
        with zipfile.ZipFile(path) as file:
            for member in file.namelist():
                if (found := MEMBER.fullmatch(member)) is None:
                    raise ValueError(f"{member} is not a file of a run")
                runs[found["key"]][found["name"]] = file.read(member)
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from error
    for key, members in runs.items():
        if _entry(path, members).key != key:
            raise _damaged(path, ValueError(f"{key} has the key of another run"))
    return dict(runs)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from saving into a folder of the archive, or wait for one that does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            yield
    except OSError as error:
        fix = "give another --to, or see to permissions and free space, and save the runs again"
        raise InputError("the runs cannot be saved", got=error, fix=fix) from error


def _write(path: Path, runs: Mapping[str, Members]) -> None:
    """Write runs atomically, in an order and with times that depend on nothing else."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(partial, "w") as file:
            for key, members in sorted(runs.items()):
                for name, content in sorted(members.items()):
                    file.writestr(zipfile.ZipInfo(f"{key}/{name}", EPOCH), content, zipfile.ZIP_DEFLATED, 9)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _damaged(path: Path, error: Exception) -> InputError:
    fix = "restore the file from a copy, or remove it and save the runs again"
    return InputError("a file of the archive is damaged", got=f"{path}: {error}", fix=fix)
