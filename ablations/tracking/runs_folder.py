"""The runs folder: one relocatable folder for stages, logs, the MLflow store and its artifacts.

    runs/rrpo-runs.json   the marker: format, and the folder's absolute path when it was last opened
    runs/mlflow.db        the tracking store
    runs/artifacts/       MLflow's artifacts, one folder per grid
    runs/stages/          results by content hash
    runs/checkpoints/     states of stages that are being built
    runs/logs/            one log per task
    runs/outbox/          records that the tracking store has not accepted yet
    runs/cache/           artifacts fetched from an MLflow server
    runs/plans/           planned cells of each grid
    runs/claims/, runs/progress/   which process builds which stage, and how far it is

If ``MLFLOW_TRACKING_URI`` is set to an MLflow server's address, that server replaces ``mlflow.db`` and ``artifacts/``; everything
else stays here.

MLflow writes absolute artifact paths into its store. `RunsFolder.relocate` rewrites them when a folder is opened that was moved,
copied or mounted elsewhere. Two mounts of one folder may be in use at once, so never use a stored path directly: see
`RunsFolder.here`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock

from rrpo.errors import InputError

MARKER = "rrpo-runs.json"
FORMAT = 1
UNRECORDED = ("artifacts", "stages", "checkpoints", "claims", "progress", "logs", "regime", "gradients")
"""Folders that can exist before anything is recorded: `rrpo.train`, `ablations.pilot` and others only build stages."""
SERVER = "MLFLOW_TRACKING_URI"
"""Environment variable with the address of an MLflow server to record to."""
RESERVED = frozenset("?#%")
"""Characters not allowed in the path: they are special in SQLite, SQLAlchemy and MLflow URIs, which have no common quoting."""
ROOM = 16 * 2**20
"""Free bytes required for a new folder: MLflow's empty store takes about 1 MiB, and its creation fails halfway without space."""
UI_ADDRESS = "http://127.0.0.1:5000"
"""Default address of `mlflow ui`."""


@dataclass
class RunsFolder:
    """Paths of one runs folder. Create instances with `check`, which writes nothing."""

    root: Path
    """Absolute path."""

    def __post_init__(self) -> None:
        self.database = self.root / "mlflow.db"
        """The SQLite tracking store."""
        self.artifacts = self.root / "artifacts"
        """MLflow's artifacts."""
        self.logs = self.root / "logs"
        """Logs of the tasks."""
        self.outbox = self.root / "outbox"
        """Records that wait for the tracking store."""
        self.cache = self.root / "cache"
        """Artifacts fetched from a server, one folder per run."""
        self.claims = self.root / "claims"
        """Which process is building which stage (`rrpo.pipeline.claims`)."""

    @property
    def exists(self) -> bool:
        """Whether `ablations.tracking.recorder.create` has completed here."""
        return (self.root / MARKER).is_file()

    def require(self) -> None:
        """Raise InputError if nothing has been recorded here."""
        if not self.exists:
            raise InputError(
                "there is no runs folder", got=self.root, fix="give --runs-dir a folder that a run created"
            )

    @property
    def server(self) -> str:
        """Address of the MLflow server used instead of the database; empty if there is none."""
        return os.environ.get(SERVER, "").rstrip("/")

    @property
    def tracking_uri(self) -> str:
        """MLflow's URI of the store."""
        return self.server or f"sqlite:///{self.database}"

    @property
    def address(self) -> str:
        """Readable address of the store: the server's without its password, or the database path."""
        return _without_password(self.server) or str(self.database)

    @property
    def ui_address(self) -> str:
        """Address of the MLflow UI while `ui_command` runs."""
        return _without_password(self.server) or UI_ADDRESS

    def ui_command(self) -> str:
        """Return the command that opens the MLflow UI on this folder; only the address if a server provides the UI."""
        return self.ui_address if self.server else f"mlflow ui --backend-store-uri {shlex.quote(self.tracking_uri)}"

    def lock(self) -> FileLock:
        """Return the lock that is held while the folder or its store is created or rewritten."""
        return FileLock(self.root / ".lock")

    def make(self) -> None:
        """Create the folder. Raise InputError if there is not enough disk space for a new one."""
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if not self.exists and free < ROOM:
            raise InputError(
                "the disk has no room for a runs folder",
                got=f"{self.root}: {free / 2**20:.1f} MiB",
                fix=f"free at least {ROOM / 2**20:.0f} MiB there, or give --runs-dir a folder on another disk",
            )

    def write_marker(self) -> None:
        """Atomically write the marker: format, folder path, and the server that the folder was created for."""
        server = self.marker().get("server", "") if self.exists else _without_password(self.server)
        partial = self.root / f".{MARKER}.{os.getpid()}"
        marker = {"format": FORMAT, "root": str(self.root)} | ({"server": server} if server else {})
        partial.write_text(json.dumps(marker) + "\n")
        os.replace(partial, self.root / MARKER)

    def relocate(self) -> None:
        """Rewrite the store's artifact paths to the current folder if it was moved."""
        if not self.exists or self.marker()["root"] == str(self.root):
            return
        with self.lock():
            old_root = self.marker()["root"]
            if old_root == str(self.root):
                return
            if self.database.is_file():
                self._rewrite(old_root)
            self.write_marker()

    def here(self, uri: str) -> str:
        """Translate a stored artifact URI to this folder, because another mount may have opened the store last.

        A server's URI is returned unchanged, and so is one that does not end in ``artifacts/EXPERIMENT/RUN/artifacts``.
        """
        parts = Path(uri).parts[-4:]
        local = len(parts) == 4 and parts[0] == parts[3] == "artifacts" and not self.server
        return str(self.root.joinpath(*parts)) if local else uri

    def _rewrite(self, old_root: str) -> None:
        with closing(sqlite3.connect(self.database, timeout=30)) as connection, connection:
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (f"{self.root}/", len(old_root) + 2, len(old_root) + 1, f"{old_root}/"),
                )

    def marker(self) -> dict[str, Any]:
        """Return the content of the marker."""
        return dict(json.loads((self.root / MARKER).read_text()))


def check(path: Path) -> RunsFolder:
    """Check the runs folder at ``path``, which need not exist yet.

    Writes nothing itself, but opening the database lets SQLite roll back a killed writer's transaction.

    Raises:
        InputError: The path is a file, cannot be read or written, contains a `RESERVED` character or holds foreign files; or
            ``MLFLOW_TRACKING_URI`` is not the address of a server.
    """
    folder = RunsFolder(path.expanduser().resolve())
    _check_server(folder.server)
    if reserved := RESERVED & set(str(folder.root)):
        what = f"a runs folder's path must not contain {' or '.join(sorted(reserved))}: the store's URI cannot represent it"
        fix = "give --runs-dir another path, or move the folder; a runs folder can be opened anywhere"
        raise InputError(what, got=folder.root, fix=fix)
    fix = "give --runs-dir a new or empty folder, or one that an earlier run created"
    try:
        existing = next(place for place in (folder.root, *folder.root.parents) if place.exists())
        if not existing.is_dir() or not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
            raise InputError("the runs folder is not a readable and writable folder", got=existing, fix=fix)
        entries = {entry.name for entry in existing.iterdir()} - {".lock"} if existing == folder.root else set()
        if entries and MARKER not in entries and not _unfinished(entries):
            raise InputError(f"the runs folder holds files that are not a run's (no {MARKER})", got=path, fix=fix)
        if folder.exists:
            _check_marker(folder)
    except OSError as error:
        raise InputError("the runs folder cannot be read", got=f"{path} ({error})", fix=fix) from error
    return folder


def _unfinished(entries: set[str]) -> bool:
    """Return whether a folder holds only results that are not recorded, and files of a store whose creation was interrupted."""
    return all(name in UNRECORDED or name.startswith(("mlflow.db", f".{MARKER}")) for name in entries)


def _check_marker(folder: RunsFolder) -> None:
    fix = "give --runs-dir another folder, or restore this one from a copy"
    try:
        marker = folder.marker()
        version, _, server = marker["format"], marker["root"], marker.get("server", "")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"the runs folder's {MARKER} is damaged", got=repr(error), fix=fix) from error
    if version != FORMAT:
        raise InputError("the runs folder has another format", got=version, fix=fix)
    if folder.server:
        return
    if server and not folder.database.exists():
        fix = f"set {SERVER} to the server's address, or give --runs-dir another folder"
        raise InputError("the runs of this folder were recorded on an MLflow server", got=server, fix=fix)
    try:
        # Not read-only: SQLite must be able to roll back a transaction that a killed process left unfinished.
        with closing(sqlite3.connect(f"file:{folder.database}?mode=rw", uri=True)) as connection:
            connection.execute("SELECT count(*) FROM experiments").fetchone()
    except sqlite3.Error as error:
        raise InputError("the runs folder's mlflow.db is missing or damaged", got=error, fix=fix) from error


def _check_server(address: str) -> None:
    try:
        parts = urlsplit(address)
        valid = not address or (parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0)
    except ValueError:
        valid = False
    if not valid:
        fix = f"set it to the http(s) address of an MLflow server, or unset {SERVER} to record in the runs folder"
        raise InputError(f"{SERVER} is not the address of an MLflow server", got=_without_password(address), fix=fix)


def _without_password(address: str) -> str:
    """Return an address without user and password."""
    scheme, mark, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"
