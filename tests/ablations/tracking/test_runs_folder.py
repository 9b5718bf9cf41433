"""The runs folder: valid paths, recovery after a killed writer, and the location of artifacts."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from ablations.tracking import recorder
from ablations.tracking.run_files import put_text
from ablations.tracking.runs_folder import RunsFolder, check
from rrpo.errors import InputError


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%20b", "100%"])
def test_a_path_that_no_address_can_hold_is_refused(tmp_path: Path, name: str):
    for path in (tmp_path / name, tmp_path / name / "runs"):
        with pytest.raises(InputError, match=r"must not contain [?#%]: "):
            check(path)
    assert list(tmp_path.iterdir()) == []
    assert check(tmp_path / "a b'c" / "runs").tracking_uri.endswith("a b'c/runs/mlflow.db")


def test_stages_that_were_built_before_anything_is_recorded_are_no_foreign_files(tmp_path: Path):
    for name in ("stages", "checkpoints", "claims", "progress", "logs", "regime"):
        (tmp_path / name).mkdir()
    assert not check(tmp_path).exists
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="files that are not a run's"):
        check(tmp_path)


def test_a_full_disk_takes_no_new_folder(tmp_path: Path):
    """Otherwise MLflow would leave a partial store and print a traceback."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a tmpfs here")
    try:
        with pytest.raises(
            InputError, match=r"no room for a runs folder\n  got: .*: 8.0 MiB\n  fix: free at least 16 MiB"
        ):
            recorder.create(RunsFolder(tmp_path / "runs"), "tiny")
        assert not list((tmp_path / "runs").iterdir())
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_store_whose_writer_was_killed_in_the_midst_opens(runs: Path, tmp_path: Path):
    """Its journal still exists, and SQLite rolls back the partial transaction at the next opening."""
    shutil.copytree(runs, tmp_path / "killed")
    with closing(sqlite3.connect(runs / "mlflow.db", isolation_level=None)) as writer:
        writer.execute("PRAGMA cache_size = 1")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("CREATE TABLE half (text)")
        writer.executemany("INSERT INTO half VALUES (?)", [("x" * 1000,)] * 1000)
        for name in ("mlflow.db", "mlflow.db-journal"):
            shutil.copy(runs / name, tmp_path / "killed" / name)
        writer.execute("ROLLBACK")
    folder = check(tmp_path / "killed")
    assert not (folder.root / "mlflow.db-journal").exists()
    with closing(sqlite3.connect(folder.database)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone() == (0,)


def test_artifacts_are_looked_for_in_this_mount_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = RunsFolder(tmp_path)
    local = str(tmp_path / "artifacts" / "tiny" / "1f" / "artifacts")
    for uri in (local, "/other/runs/artifacts/tiny/1f/artifacts", "file:///other/runs/artifacts/tiny/1f/artifacts"):
        assert folder.here(uri) == local
    run = SimpleNamespace(info=SimpleNamespace(artifact_uri="/other/runs/artifacts/tiny/1f/artifacts"))
    put_text(folder, run, "a,b\r\n1,2\r\n", "ratings.csv")
    assert Path(local, "ratings.csv").read_bytes() == b"a,b\r\n1,2\r\n"
    for foreign in ("/mlruns/1/1f/artifacts", "/artifacts", "mlflow-artifacts:/1/1f/artifacts", ""):
        assert folder.here(foreign) == foreign
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert folder.here("/srv/artifacts/tiny/1f/artifacts") == "/srv/artifacts/tiny/1f/artifacts"
