"""Read and write a run's artifacts; those on a server are fetched once into ``runs/cache``."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ablations.tracking import records
from ablations.tracking.connection import answering, open_client
from ablations.tracking.runs_folder import RunsFolder
from rrpo.identity import content_hash

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository


def files_in(folder: Path) -> dict[str, Path]:
    """Return path relative to ``folder`` -> file, of all files in it and its folders."""
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def repository(folder: RunsFolder, run: Any) -> ArtifactRepository:
    """Return where an MLflow run's artifacts are written: in a local store through this mount of the folder, since the stored
    path may be another one's."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(folder.here(run.info.artifact_uri), tracking_uri=folder.tracking_uri)


def put_text(folder: RunsFolder, run: Any, text: str, name: str) -> None:
    """Write a text as the artifact ``name`` of an MLflow run."""
    with TemporaryDirectory() as temporary:
        path = Path(temporary, name)
        path.write_text(text, encoding="utf-8", newline="")
        repository(folder, run).log_artifact(str(path))


def cached(folder: RunsFolder, run: Any) -> Path:
    """Return where the artifacts of an MLflow run on a server are cached. The name contains the run's optional results, because
    another runs folder may add some."""
    roles = sorted(records.roles(run.data.tags))
    return folder.cache / "-".join([run.info.run_id, *([content_hash(roles)[:8]] if roles else [])])


def locate(folder: RunsFolder, run: Any) -> Path:
    """Return the local folder of the artifacts of an MLflow run, which must have ended.

    Raises:
        UnavailableError: The artifacts are on a server that does not answer.
    """
    path = Path(folder.here(run.info.artifact_uri).removeprefix("file://"))
    if path.is_absolute() and (path.is_dir() or not folder.server):
        return path
    fetched = cached(folder, run)
    if not fetched.is_dir():
        folder.cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.cache, prefix=".") as temporary, answering(folder):
            partial = Path(temporary) / "artifacts"
            partial.mkdir()
            open_client(folder).download_artifacts(run.info.run_id, "", str(partial))
            if not fetched.is_dir():  # another process may have fetched them in the meantime
                os.replace(partial, fetched)
    return fetched
