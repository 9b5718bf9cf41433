"""The outbox: runs are written to disk here before they are written to the tracking store.

    runs/outbox/<key>.<time>/entry.json   name, tags, params, metrics and status of one run
    runs/outbox/<key>.<time>/artifacts/   its artifacts; files of stages are hard links

Entries are atomic: each is written under a temporary name, flushed to disk and renamed. This module does not depend on MLflow.
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
from typing import Any

from rrpo.identity import content_hash
from rrpo.pipeline.stages import flush

ENTRY = "entry.json"
ARTIFACTS = "artifacts"
STALE = 86400.0
"""Age in seconds after which a partially written entry is removed."""


def now() -> int:
    """Return milliseconds since 1970."""
    return int(time.time() * 1000)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The intended state of one MLflow run, or an addition to one. Writing an entry twice has no further effect."""

    key: str
    """Globally unique key, used in the name of the entry's folder and as a tag of the run."""
    experiment: str
    """Name of the experiment."""
    name: str
    """The run's name."""
    started: int = field(default_factory=now)
    """Start time, milliseconds since 1970."""
    ended: int = field(default_factory=now)
    """End time, milliseconds since 1970, of a run that is not running."""
    status: str = "RUNNING"
    """``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags, set when the run is created."""
    params: Mapping[str, str] = field(default_factory=dict)
    """Params."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics; finite values only."""
    step: int = 0
    """Step of the metrics."""
    datasets: Mapping[str, str] = field(default_factory=dict)
    """Name -> digest of each input of the run."""
    cell: str = ""
    """Hash of the cell; empty if the run does not belong to a cell."""
    complete: bool = False
    """Whether the entry completes the cell."""
    adds: bool = False
    """Whether the entry adds tags and artifacts to the cell's complete run instead of creating a run."""


def new_key(kind: str) -> str:
    """Return a new unique key."""
    return f"{kind}-{uuid.uuid4().hex[:24]}"


def key_for(kind: str, identity: Any) -> str:
    """Return the key that depends only on ``identity`` (plain data), so that the same run is recorded once."""
    return f"{kind}-{content_hash(identity)[:24]}"


@dataclass(frozen=True)
class Outbox:
    """The entries of one runs folder that are not in the tracking store yet."""

    root: Path
    """``runs/outbox``, created when first needed."""

    def put(self, entry: Entry, artifacts: Mapping[str, Path | str] | None = None) -> None:
        """Write an entry with its artifacts; it replaces older entries with the same key.

        Args:
            entry: The entry.
            artifacts: Name -> file to link or copy, or text.

        Raises:
            OSError: The disk is full. No part of the entry is kept.
        """
        final = self.root / f"{entry.key}.{time.time_ns():020d}"
        partial = self.root / f".{final.name}"
        try:
            (partial / ARTIFACTS).mkdir(parents=True)
            for name, content in (artifacts or {}).items():
                _store(content, partial / ARTIFACTS / name)
            _store(json.dumps(dataclasses.asdict(entry)), partial / ENTRY)
            os.replace(partial, final)
            flush(self.root)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        for older in self.root.glob(f"{entry.key}.*"):
            if older.name < final.name:
                self.remove(older)

    def pending(self) -> dict[Path, Entry]:
        """Return folder -> entry, ordered by start and then writing time. Unreadable entries are skipped and kept."""
        entries = {}
        for path in self.root.glob(f"[!.]*/{ENTRY}"):
            with contextlib.suppress(OSError, ValueError, TypeError):
                entries[path.parent] = Entry(**json.loads(path.read_text(encoding="utf-8")))
        return dict(sorted(entries.items(), key=lambda item: (item[1].started, item[0].suffix)))

    def place(self, key: str) -> Path | None:
        """Return the folder of the newest entry with a key, None if there is none."""
        return max(self.root.glob(f"{key}.*"), default=None)

    def remove(self, folder: Path, keep: Path | None = None) -> None:
        """Remove an entry atomically; if ``keep`` is given and does not exist, move the artifacts there."""
        removed = folder.with_name(f".{folder.name}.gone")
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            os.replace(folder, removed)
            if keep is not None and not keep.exists():
                keep.parent.mkdir(parents=True, exist_ok=True)
                os.replace(removed / ARTIFACTS, keep)
            shutil.rmtree(removed, ignore_errors=True)

    def sweep(self) -> None:
        """Remove partial entries of killed writers that are older than `STALE`."""
        for path in self.root.glob(".*.*"):
            with contextlib.suppress(FileNotFoundError):  # another process has just completed or removed it
                if path.is_dir() and time.time() - path.stat().st_mtime > STALE:
                    shutil.rmtree(path, ignore_errors=True)


def _store(content: Path | str, path: Path) -> None:
    """Write a text, flushed to disk, or link a file; copy it where a link is not possible, as between file systems."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
        flush(path)
        return
    try:
        os.link(content, path)
    except OSError:
        shutil.copyfile(content, path)
