"""The runs folder: one relocatable place for stages, logs, the MLflow store and its artifacts.

    runs/rrpo-runs.json   the marker: format and the absolute path at the last opening
    runs/mlflow.db        the tracking store
    runs/artifacts/       MLflow's artifacts, one folder a grid
    runs/stages/          results by content hash
    runs/logs/            one log a task
    runs/outbox/          records that the tracking store has not taken yet
    runs/cache/           artifacts fetched from an MLflow server

With ``MLFLOW_TRACKING_URI`` set to an MLflow server's address, that server takes the place of ``mlflow.db`` and
``artifacts/``; all else stays here.

MLflow writes absolute artifact paths into its store, so a folder that was moved or copied, or that is mounted elsewhere, has
them rewritten here when it is next opened. Two mounts may be at work at once, so nothing here goes by such a path: see `here`.
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
from urllib.parse import urlsplit

from filelock import FileLock

from ablations.errors import InputError

MARKER = "rrpo-runs.json"
FORMAT = 1
RESULTS = ("stages", "checkpoints", "claims", "progress")
"""Folders that `rrpo.train` makes."""
SERVER = "MLFLOW_TRACKING_URI"
"""The environment's word for an MLflow server to record on."""
RESERVED = frozenset("?#%")
"""Characters with a meaning of their own in the addresses of sqlite, SQLAlchemy and MLflow, which share no way to quote them."""
ROOM = 16 * 2**20
"""Bytes that a new folder asks of the disk: MLflow's empty store takes about 1 MiB, and breaks off half way without room."""
UI_ADDRESS = "http://127.0.0.1:5000"
"""Where `mlflow ui` listens when it is told nothing else."""


@dataclass(frozen=True)
class RunsFolder:
    """Paths of one runs folder; make one by `check`, which writes nothing."""

    root: Path
    """Absolute."""

    @property
    def exists(self) -> bool:
        """Whether `create` has finished here once."""
        return (self.root / MARKER).is_file()

    @property
    def database(self) -> Path:
        """The sqlite tracking store."""
        return self.root / "mlflow.db"

    @property
    def server(self) -> str:
        """Address of the MLflow server that takes the database's place; empty for none."""
        return os.environ.get(SERVER, "").rstrip("/")

    @property
    def tracking_uri(self) -> str:
        """The store as MLflow names it."""
        return self.server or f"sqlite:///{self.database}"

    @property
    def address(self) -> str:
        """The store for people: the server without its password, or the database."""
        return _shown(self.server) if self.server else str(self.database)

    @property
    def ui_address(self) -> str:
        """Where the MLflow UI is to be seen, once `ui_command` runs."""
        return _shown(self.server) if self.server else UI_ADDRESS

    @property
    def artifacts(self) -> Path:
        """MLflow's artifacts."""
        return self.root / "artifacts"

    @property
    def logs(self) -> Path:
        """Logs of tasks."""
        return self.root / "logs"

    @property
    def outbox(self) -> Path:
        """Records that wait for the tracking store."""
        return self.root / "outbox"

    @property
    def cache(self) -> Path:
        """Artifacts fetched from a server, one folder a run."""
        return self.root / "cache"

    @property
    def claims(self) -> Path:
        """Who is at work on what, `rrpo.pipeline.claims`."""
        return self.root / "claims"

    def ui_command(self) -> str:
        """The command that opens the MLflow UI on this folder; the address alone where a server shows it."""
        return self.ui_address if self.server else f"mlflow ui --backend-store-uri {shlex.quote(self.tracking_uri)}"

    def lock(self) -> FileLock:
        """Held while the folder or its store is created or rewritten."""
        return FileLock(self.root / ".lock")

    def make(self) -> None:
        """Create the folder. Raises InputError when the disk of a new one is full."""
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if not self.exists and free < ROOM:
            fix = f"free at least {ROOM / 2**20:.0f} MiB there, or give --runs-dir a folder on another disk"
            got = f"{self.root}: {free / 2**20:.1f} MiB"
            raise InputError("the disk has no room for a runs folder", got=got, fix=fix)

    def write_marker(self) -> None:
        """Record the format, where the folder lies, and the server it was made for, in one step."""
        server = self._marker().get("server", "") if self.exists else _shown(self.server)
        partial = self.root / f".{MARKER}.{os.getpid()}"
        marker = {"format": FORMAT, "root": str(self.root)} | ({"server": server} if server else {})
        partial.write_text(json.dumps(marker) + "\n")
        os.replace(partial, self.root / MARKER)

    def relocate(self) -> bool:
        """Point the store's artifact paths at where the folder lies now; True when it had been moved."""
        if not self.exists or self._marker()["root"] == str(self.root):
            return False
        with self.lock():
            before = self._marker()["root"]
            if before == str(self.root):
                return False
            if self.database.is_file():
                self._rewrite(before)
            self.write_marker()
        return True

    def here(self, uri: str) -> str:
        """The address of a run's artifacts as the store has it, made this folder's own: another mount may have opened it last.

        A server's is left as it is, and so is one that does not end in ``artifacts/EXPERIMENT/RUN/artifacts``.
        """
        tail = Path(uri).parts[-4:]
        ours = len(tail) == 4 and tail[0] == tail[3] == "artifacts" and not self.server
        return str(self.root.joinpath(*tail)) if ours else uri

    def _rewrite(self, before: str) -> None:
        with closing(sqlite3.connect(self.database, timeout=30)) as connection, connection:
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (f"{self.root}/", len(before) + 2, len(before) + 1, f"{before}/"),
                )

    def _marker(self) -> dict[str, str]:
        return dict(json.loads((self.root / MARKER).read_text()))


def check(path: Path) -> RunsFolder:
    """The runs folder at ``path``, which may not exist yet. Writes nothing, but sqlite takes a killed writer's half back.

    Raises InputError when it is a file, cannot be read or written, has a path that no store's address can hold, or holds
    something that is not ours, and for a ``MLFLOW_TRACKING_URI`` that is no server's address.
    """
    folder = RunsFolder(path.expanduser().resolve())
    _check_server(folder.server)
    if bad := RESERVED & set(str(folder.root)):
        said = f"a runs folder's path must not contain {' or '.join(sorted(bad))}: no store's address can hold that"
        fix = "give --runs-dir another path, or move the folder, which opens anywhere"
        raise InputError(said, got=folder.root, fix=fix)
    fix = "give --runs-dir an empty or new folder, or one that a former run made"
    try:
        if not folder.root.exists():
            _check_parent(folder.root, fix)
            return folder
        if not folder.root.is_dir():
            raise InputError("the runs folder is not a folder", got=path, fix=fix)
        if not os.access(folder.root, os.R_OK | os.W_OK | os.X_OK):
            raise InputError("the runs folder cannot be read and written", got=path, fix=f"chmod u+rwx it, or {fix}")
        entries = {entry.name for entry in folder.root.iterdir()} - {".lock"}
        if entries and MARKER not in entries and not _unfinished(entries):
            raise InputError(f"the runs folder holds files that are not a run's (no {MARKER})", got=path, fix=fix)
        if folder.exists:
            _check_marker(folder)
    except OSError as error:
        raise InputError("the runs folder cannot be read", got=f"{path} ({error})", fix=fix) from error
    return folder


def _unfinished(entries: set[str]) -> bool:
    """Whether nothing is there but results of ``python -m rrpo``, and the first files of a store whose creation was cut off."""
    return all(name in ("artifacts", *RESULTS) or name.startswith(("mlflow.db", f".{MARKER}")) for name in entries)


def _check_parent(root: Path, fix: str) -> None:
    parent = next(folder for folder in root.parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError("the runs folder cannot be created", got=root, fix=fix)


def _check_marker(folder: RunsFolder) -> None:
    fix = "give --runs-dir another folder, or restore this one from a copy"
    try:
        marker = json.loads((folder.root / MARKER).read_text())
        version, _, server = marker["format"], marker["root"], marker.get("server", "")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"the runs folder's {MARKER} is damaged", got=repr(error), fix=fix) from error
    if version != FORMAT:
        raise InputError("the runs folder has another format", got=version, fix=fix)
    if waiting := list(folder.root.glob("spool/[!.]*/entry.json")):
        fix = "give any command of the version that wrote them once, which carries them over, then this one again"
        got = f"{len(waiting)} in {folder.root / 'spool'}"
        raise InputError("records of an earlier version wait for the tracking store", got=got, fix=fix)
    if folder.server:
        return
    if server and not folder.database.exists():
        fix = f"export {SERVER} with the server's address, or give --runs-dir another folder"
        raise InputError("the runs of this folder were recorded on an MLflow server", got=server, fix=fix)
    try:
        # not read-only: that would refuse what sqlite itself mends, a write that a killed process left half done
        with closing(sqlite3.connect(f"file:{folder.database}?mode=rw", uri=True)) as connection:
            connection.execute("SELECT count(*) FROM experiments").fetchone()
    except sqlite3.Error as error:
        raise InputError("the runs folder's mlflow.db is missing or damaged", got=error, fix=fix) from error


def _check_server(address: str) -> None:
    try:
        parts = urlsplit(address)
        good = not address or (parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0)
    except ValueError:
        good = False
    if not good:
        fix = f"give it an MLflow server's http(s) address, or unset {SERVER} to track in the runs folder"
        raise InputError(f"{SERVER} names no MLflow server", got=_shown(address), fix=fix)


def _shown(address: str) -> str:
    """An address without user and password."""
    scheme, mark, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"
