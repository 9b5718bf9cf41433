"""Locate a run's artifacts on this machine; those on a server are fetched once into ``runs/cache``."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ablations.tracking.connection import answering, open_client
from ablations.tracking.runs_folder import RunsFolder


def files_in(folder: Path) -> dict[str, Path]:
    """Return path relative to ``folder`` -> file, of all files in it and its folders."""
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def locate(folder: RunsFolder, run: Any) -> Path:
    """Return the local folder of the artifacts of an MLflow run, which must have ended.

    Raises:
        UnavailableError: The artifacts are on a server that does not answer.
    """
    path = Path(folder.here(run.info.artifact_uri).removeprefix("file://"))
    if path.is_absolute() and (path.is_dir() or not folder.server):
        return path
    fetched = folder.cache / run.info.run_id
    if not fetched.is_dir():
        folder.cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.cache, prefix=".") as temporary, answering(folder):
            partial = Path(temporary) / "artifacts"
            partial.mkdir()
            open_client(folder).download_artifacts(fetched.name, "", str(partial))
            if not fetched.is_dir():  # another process may have fetched them in the meantime
                os.replace(partial, fetched)
    return fetched
