"""Locate a run's artifacts on this machine; those on a server are fetched once into ``runs/cache``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from ablations.execution.runs_folder import RunsFolder
from ablations.tracking.connection import answering, open_client


def locate(folder: RunsFolder, run: Any) -> Path:
    """Return the local folder of the artifacts of an MLflow run, which must have ended.

    Raises:
        UnavailableError: The artifacts are on a server that does not answer.
    """
    path = Path(folder.here(run.info.artifact_uri).removeprefix("file://"))
    if path.is_absolute() and (path.is_dir() or not folder.server):
        return path
    final = folder.cache / run.info.run_id
    if final.is_dir():
        return final
    partial = folder.cache / f".{final.name}.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with answering(folder):
            open_client(folder).download_artifacts(final.name, "", str(partial))
        if not final.is_dir():  # another process may have fetched them in the meantime
            os.replace(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final
