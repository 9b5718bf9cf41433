"""Locate a run's artifacts on this machine; those on a server are fetched once into ``runs/cache``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ablations.execution.runs_folder import RunsFolder
from ablations.tracking.connection import answering, open_client


def locate(folder: RunsFolder, run_id: str, uri: str) -> Path:
    """Return the local folder of a run's artifacts. The run must have ended.

    Args:
        folder: The runs folder.
        run_id: Id of the MLflow run.
        uri: MLflow's URI of the artifacts.

    Raises:
        UnavailableError: The artifacts are on a server that does not answer.
    """
    path = Path(uri.removeprefix("file://"))
    return path if path.is_absolute() and (path.is_dir() or not folder.server) else _fetch(folder, run_id)


def _fetch(folder: RunsFolder, run_id: str) -> Path:
    final = folder.cache / run_id
    if final.is_dir():
        return final
    partial = folder.cache / f".{run_id}.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with answering(folder):
            open_client(folder).download_artifacts(run_id, "", str(partial))
        if not final.is_dir():  # another process may have fetched them in the meantime
            os.replace(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final
