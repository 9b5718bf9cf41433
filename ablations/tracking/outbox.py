"""The outbox in front of the tracking store: what a run shall be, on disk before the store is asked to take it.

    runs/outbox/<key>.<time>/entry.json   name, tags, params, metrics, status of one run
    runs/outbox/<key>.<time>/artifacts/   its artifacts; a stage's files are hard links

An entry is complete or not there: it is written beside its place, flushed to disk and renamed. Knows nothing of MLflow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from rrpo.pipeline.stages import flush

ENTRY = "entry.json"
ARTIFACTS = "artifacts"
STALE = 86400.0
"""Seconds after which a half-written entry is litter."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One MLflow run as it shall be, or what is added to one; writing it twice changes nothing."""

    key: str
    """Unique among all runs ever; in its folder's name, and a tag of the run."""
    experiment: str
    """Name of the experiment."""
    name: str
    """The run's name."""
    started: int = field(default_factory=lambda: int(time.time() * 1000))
    """Milliseconds since 1970."""
    status: str = "RUNNING"
    """``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags from the start on."""
    params: Mapping[str, str] = field(default_factory=dict)
    """What it ran with."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Numbers, finite ones."""
    step: int = 0
    """Step of the metrics."""
    datasets: Mapping[str, str] = field(default_factory=dict)
    """Name -> digest of what it was made from."""
    cell: str = ""
    """Hash of the cell whose run this is, if it is one's."""
    complete: bool = False
    """Whether this completes the cell."""
    adds: bool = False
    """Whether this adds tags and artifacts to the cell's complete run, instead of making one."""


def new_key(kind: str) -> str:
    """A key that no other run has."""
    return f"{kind}-{uuid.uuid4().hex[:24]}"


@dataclass(frozen=True)
class Outbox:
    """The entries of one runs folder that the store has not taken yet."""

    root: Path
    """``runs/outbox``; created when first needed."""

    def lock(self, wait: float) -> FileLock:
        """Held by the one process that carries entries over to the store."""
        self.root.mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / ".lock", timeout=wait)

    def put(
        self, entry: Entry, files: Mapping[str, Path] | None = None, texts: Mapping[str, str] | None = None
    ) -> None:
        """Write an entry with its artifacts, files and texts by artifact name; it replaces older ones of its key.

        Raises OSError when the disk takes no more; nothing of the entry is there then.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        final = self.root / f"{entry.key}.{time.time_ns():020d}"
        partial = self.root / f".{final.name}"
        try:
            artifacts = partial / ARTIFACTS
            artifacts.mkdir(parents=True)
            for name, path in (files or {}).items():
                _link(path, artifacts / name)
            for name, text in (texts or {}).items():
                _write(artifacts / name, text)
            _write(partial / ENTRY, json.dumps(dataclasses.asdict(entry)))
            os.replace(partial, final)
            flush(self.root)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        for older in self.root.glob(f"{entry.key}.*"):
            if older.name < final.name:
                self.remove(older)

    def pending(self) -> dict[Path, Entry]:
        """Every entry by its folder, in the order of writing; one that cannot be read is left alone."""
        found = {}
        for path in self.root.glob(f"[!.]*/{ENTRY}"):
            with contextlib.suppress(OSError, ValueError, TypeError):
                found[path.parent] = Entry(**json.loads(path.read_text(encoding="utf-8")))
        return dict(sorted(found.items(), key=lambda item: (item[1].started, item[0].suffix)))

    def place(self, key: str) -> Path | None:
        """The folder of the newest entry of a key, None when none waits."""
        return max(self.root.glob(f"{key}.*"), default=None)

    def remove(self, place: Path, keep: Path | None = None) -> None:
        """Forget an entry, in one step; its artifacts may be kept by moving them to ``keep``."""
        gone = place.with_name(f".{place.name}.gone")
        try:
            os.replace(place, gone)
        except FileNotFoundError:
            return
        if keep is not None and not keep.exists():
            keep.parent.mkdir(parents=True, exist_ok=True)
            os.replace(gone / ARTIFACTS, keep)
        shutil.rmtree(gone, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed writers left half-written long ago."""
        for path in self.root.glob(".*.*"):
            with contextlib.suppress(FileNotFoundError):  # another process has just finished it
                if path.is_dir() and time.time() - path.stat().st_mtime > STALE:
                    shutil.rmtree(path, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
