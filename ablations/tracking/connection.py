"""Connect to the tracking store, a SQLite file or an MLflow server, and detect within seconds when it does not answer.

MLflow waits minutes for a dead server and 20 s for each statement on a locked file, so `trouble` checks the store first.
"""

from __future__ import annotations

import logging
import os
import shlex
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from ablations.tracking.runs_folder import RunsFolder
from rrpo.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient

WAIT = 5.0
"""Maximum seconds to wait for a server's answer or for a locked file."""
CHECK_PATH = "/api/2.0/mlflow/experiments/search"
"""Request that checks a server. Unlike ``/health``, it fails if MLflow's database is down or the user is not authorized."""
TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""Tag of an experiment that makes MLflow open the page of training runs instead of the one for language models."""
PARTIAL = ".partial-"
"""Suffix that a store's name has while the store is being created."""
OUTDATED = "out-of-date database schema"
"""Part of MLflow's message about a store with the tables of another version."""
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""Default values of MLflow's environment variables; the user's own values take precedence."""


class UnavailableError(InputError):
    """The tracking store does not answer."""

    def __init__(self, folder: RunsFolder, why: str) -> None:
        fix = (
            "start the server, or correct MLFLOW_TRACKING_URI, its user and password, or unset it to record in the runs "
            "folder; records made in the meantime are kept and written later"
            if folder.server
            else "end the process that holds the file's lock, then run the same command again"
        )
        super().__init__("the tracking store does not answer", got=f"{folder.address}: {why}", fix=fix)


def create_store(folder: RunsFolder) -> None:
    """Create the folder's SQLite store if it is missing; hold the folder's lock.

    It is created under another name and moved into place: a creation that is killed leaves tables that MLflow cannot complete.
    """
    if folder.server or folder.database.exists():
        return
    for leftover in folder.root.glob(f"{folder.database.name}{PARTIAL}*"):
        leftover.unlink()
    # MLflow keeps one store per address, so a process must not use an address twice.
    partial = folder.database.with_name(f"{folder.database.name}{PARTIAL}{uuid.uuid4().hex[:8]}")
    with _unsynchronized(partial.name):
        open_client(folder, f"sqlite:///{partial}").search_experiments(max_results=1)
    with partial.open("rb+") as file:
        os.fsync(file)
    os.replace(partial, folder.database)


def open_client(folder: RunsFolder, uri: str = "") -> MlflowClient:
    """Create a client of the folder's store, or of ``uri``, with telemetry off and quiet logs. MLflow is first imported here."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # our callers report a locked file themselves
    return MlflowClient(tracking_uri=uri or folder.tracking_uri)


def trouble(folder: RunsFolder, wait: float = WAIT) -> str:
    """Return why the store cannot be written now, empty if it can. Takes at most about ``wait`` seconds."""
    return _server_trouble(folder, wait) if folder.server else _file_trouble(folder, wait)


def describe_error(folder: RunsFolder, error: Exception) -> str:
    """Return an error of the store in one line, without the server's password."""
    text = " ".join(str(error).split()).replace(folder.server or "\0", folder.address)
    for cause in ("timed out", "Connection refused", "Name or service not known", "Network is unreachable"):
        if cause in text:
            return cause.lower()
    return f"{type(error).__name__}: {text}"[:300]


@contextmanager
def _unsynchronized(name: str) -> Iterator[None]:
    """Let SQLite write the file ``name`` without waiting for the disk: MLflow creates a store in very many transactions."""
    from sqlalchemy import Engine, event

    def relax(connection: object, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            file = connection.execute("PRAGMA database_list").fetchone()[2]
            if os.path.basename(file) == name:
                connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", relax)
    try:
        yield
    finally:
        event.remove(Engine, "connect", relax)


def _server_trouble(folder: RunsFolder, wait: float) -> str:
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        credentials = get_default_host_creds(folder.server)
        limits = {"max_retries": 0, "timeout": wait, "raise_on_status": False}
        response = http_request(credentials, CHECK_PATH, "GET", params={"max_results": 1}, **limits)
    except Exception as error:
        return describe_error(folder, error)
    if response.status_code >= 400:
        return f"answers {response.status_code}"
    return "" if "json" in response.headers.get("Content-Type", "") else "answers, but not as MLflow does"


def _file_trouble(folder: RunsFolder, wait: float) -> str:
    if not folder.database.is_file():
        return ""
    try:
        with closing(sqlite3.connect(folder.database, timeout=wait, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return str(error)
    return ""


@contextmanager
def answering(folder: RunsFolder) -> Iterator[None]:
    """Raise UnavailableError instead of MLflow's errors if the store stops answering, and InputError if another version of MLflow
    made it."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        if reason := trouble(folder):
            raise UnavailableError(folder, reason) from error
        if OUTDATED in str(error):
            fix = "update it, after a copy, with: mlflow db upgrade "
            fix += "ITS-DATABASE, on the server's machine" if folder.server else shlex.quote(folder.tracking_uri)
            what = "another version of MLflow made the tracking store"
            raise InputError(what, got=folder.address, fix=f"{fix}; or install the MLflow that made it") from error
        raise


def ensure_experiment(client: MlflowClient, folder: RunsFolder, name: str) -> str:
    """Return the id of an experiment; create it if it is missing. A server chooses the location of its artifacts.

    Raises:
        InputError: The experiment was deleted in MLflow and not yet purged.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = None if folder.server else str(folder.artifacts / name)
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=TRAINING))
        except MlflowException:  # another host may have created it in the meantime
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        fix = f"run mlflow experiments restore --experiment-id {experiment.experiment_id}, or delete it permanently (mlflow gc)"
        raise InputError("the experiment was deleted in MLflow", got=name, fix=fix)
    return str(experiment.experiment_id)
