"""Open the storage of a study, and check its identity, which must match when the study is resumed.

The default is a journal file in the runs folder, which processes on one file system can share without a server. A URL selects
SQLite, PostgreSQL or MySQL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from filelock import FileLock, Timeout
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study as OptunaStudy

from rrpo.errors import InputError
from rrpo.identity import leaves

IDENTITY = "identity"
PATIENCE = 30
"""Seconds to wait for a lock that another process holds."""
REACH = 10
"""Timeout of a connection to a database server, in seconds."""
DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
"""Drivers of the extra ``databases``, for URLs that name none."""


def folder_of(runs_dir: Path, name: str) -> Path:
    """Return the folder of a study's files."""
    return runs_dir / "studies" / name


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """Open the storage, creating it if needed. A lock protects creation, which is not safe when several processes attempt it.

    Raises InputError for a storage that cannot be reached, is locked, damaged, or of another version.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    path = str(folder / "journal.log")
    try:
        with FileLock(folder / ".lock", timeout=PATIENCE):
            if url is not None:
                options = {"connect_args": _timeout(url), "pool_pre_ping": True}
                return RDBStorage(_with_driver(url), engine_kwargs=options)
            return JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
    except Exception as error:
        raise _open_error(url, path, error) from None


def reach(url: str) -> None:
    """Check that a database can be reached. Raises InputError as `open_storage` does."""
    try:
        engine = sqlalchemy.create_engine(_with_driver(url), connect_args=_timeout(url))
        with engine.connect():
            pass
        engine.dispose()
    except Exception as error:
        raise _open_error(url, "", error) from None


def shown(url: str) -> str:
    """Return a URL with its password hidden."""
    try:
        return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return url


def _with_driver(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return f"{DRIVERS.get(scheme, scheme)}{mark}{rest}"


def _timeout(url: str) -> dict[str, int]:
    return {"timeout": PATIENCE} if url.startswith("sqlite") else {"connect_timeout": REACH}


def _open_error(url: str | None, path: str, error: Exception) -> InputError:
    first = (str(error).splitlines() or [""])[0]
    got = f"{shown(url) if url else path}: {type(error).__name__}: {first}"
    return InputError("the study's storage cannot be opened", got=got, fix=_remedy(url, path, error))


def _remedy(url: str | None, path: str, error: Exception) -> str:
    text = str(error)
    if "locked" in text or isinstance(error, Timeout):
        return "end the process that holds the lock, then run the command again"
    if url is None:
        return f"move {path} away or restore a copy of it; finished trials are in MLflow as well"
    if isinstance(error, ImportError):
        return "pip install 'rrpo-ablations[databases]', in a checkout: pip install -e '.[databases]'"
    if "version" in text:
        return "use the version of Optuna that created it, run `optuna storage upgrade`, or use another database"
    return "check the URL and that its server is running, or leave out --storage"


def open_study(storage: BaseStorage, name: str, directions: Sequence[Any], identity: Mapping[str, Any]) -> OptunaStudy:
    """Create the study with this identity (`studies.opening.identity`), or resume it.

    Raises InputError if its stored identity differs, because trials of two identities are not comparable.
    """
    study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    stored = study.user_attrs.get(IDENTITY)
    current = json.loads(json.dumps(identity))
    if stored is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(IDENTITY, current)
    elif stored != current:
        raise InputError(
            "a study of that name has another search space or setting",
            got="; ".join(differences(stored, current)) if stored else "no identity: it was not made by this program",
            fix="use another --name, or the options with which it was started",
        )
    return study


def existing_study(url: str | None, runs_dir: Path, name: str) -> OptunaStudy:
    """Load another study of the same storage. Raises InputError if it does not exist; never creates it."""
    missing = InputError(
        "there is no study of that name", got=name, fix="run it first, in the same runs folder and storage"
    )
    folder = folder_of(runs_dir, name)
    if url is None and not (folder / "journal.log").is_file():
        raise missing
    try:
        return optuna.load_study(study_name=name, storage=open_storage(url, folder))
    except KeyError:
        raise missing from None


def differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Return ``key: was X, now Y`` for every leaf that differs."""
    old, new = dict(leaves(stored)), dict(leaves(current))
    pairs = {key: (old.get(key, "absent"), new.get(key, "absent")) for key in sorted({*old, *new})}
    return [f"{key}: was {was}, now {now}" for key, (was, now) in pairs.items() if was != now]
