"""Connect to the tracking store, a sqlite file or an MLflow server, and know within seconds when it does not answer.

MLflow itself waits minutes for a dead server and 20 s for each statement on a locked file, so `trouble` asks first.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from ablations.errors import InputError
from ablations.execution.runs_folder import RunsFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient

WAIT = 5.0
"""Seconds that a store may take to answer or to be unlocked."""
QUESTION = "/api/2.0/mlflow/experiments/search"
"""What a server is asked: unlike ``/health`` it takes MLflow itself, its database, and the right to use it."""
TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""Tag of an experiment: has MLflow open the page of training runs, not the one for language models."""
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""MLflow's own settings, where the user has set none."""


class UnavailableError(InputError):
    """The tracking store does not answer."""

    def __init__(self, folder: RunsFolder, why: str) -> None:
        fix = (
            "start the server, or put MLFLOW_TRACKING_URI, its user and password right, or unset it to track in the runs "
            "folder; what was recorded meanwhile is kept and replayed"
            if folder.server
            else "end what holds the file's lock, and give the same command again"
        )
        super().__init__("the tracking store does not answer", got=f"{folder.address}: {why}", fix=fix)
        self.why = why


def open_client(folder: RunsFolder) -> MlflowClient:
    """A client of the folder's store with telemetry off and quiet logs; MLflow is imported here and nowhere earlier."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a locked file is told by who asked
    return MlflowClient(tracking_uri=folder.tracking_uri)


def trouble(folder: RunsFolder, wait: float = WAIT) -> str:
    """Why the store cannot be written to now, after at most about ``wait`` seconds; empty when it can."""
    return _server_trouble(folder, wait) if folder.server else _file_trouble(folder, wait)


def said(folder: RunsFolder, error: Exception) -> str:
    """An error of the store's in a line, without the server's password."""
    text = " ".join(str(error).split()).replace(folder.server or "\0", folder.address)
    for cause in ("timed out", "Connection refused", "Name or service not known", "Network is unreachable"):
        if cause in text:
            return cause.lower()
    return f"{type(error).__name__}: {text}"[:300]


def _server_trouble(folder: RunsFolder, wait: float) -> str:
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        credentials = get_default_host_creds(folder.server)
        limits = {"max_retries": 0, "timeout": wait, "raise_on_status": False}
        answer = http_request(credentials, QUESTION, "GET", params={"max_results": 1}, **limits)
    except Exception as error:
        return said(folder, error)
    if answer.status_code >= 400:
        return f"answers {answer.status_code}"
    return "" if "json" in answer.headers.get("Content-Type", "") else "answers, but not as MLflow does"


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
    """Raises UnavailableError in place of MLflow's own errors when the store has gone away."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        if why := trouble(folder):
            raise UnavailableError(folder, why) from error
        raise


def ensure_experiment(client: MlflowClient, folder: RunsFolder, name: str) -> str:
    """The id of an experiment, created where it is missing; a server chooses where its artifacts lie.

    Raises InputError when the experiment lies in MLflow's bin.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        place = None if folder.server else str(folder.artifacts / name)
        try:
            return str(client.create_experiment(name, artifact_location=place, tags=TRAINING))
        except MlflowException:  # another host was quicker
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        fix = f"mlflow experiments restore --experiment-id {found.experiment_id}, or delete it for good (mlflow gc)"
        raise InputError("the experiment was deleted in MLflow", got=name, fix=fix)
    return str(found.experiment_id)
