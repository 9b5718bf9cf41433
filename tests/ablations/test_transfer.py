"""The command that measures the transfer matrix; `tests/rrpo/judges` tests the matrix itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import fakes
import pytest
from typer.testing import CliRunner

from ablations import transfer
from ablations.tracking.reader import Store
from ablations.tracking.recorder import Tracker
from ablations.tracking.runs_folder import check


def test_a_recorded_matrix_stays_as_it_was_recorded(runs: Path, monkeypatch: pytest.MonkeyPatch):
    """The tags of its run say which code measured it."""
    matrix, commits = SimpleNamespace(key="k", done=lambda store: True), iter(["one", "two"])
    monkeypatch.setattr(transfer, "comparable", lambda *arguments: [fakes.cells(["diffro", "rrpo"], [1])])
    monkeypatch.setattr(transfer, "matrix", lambda cells: matrix)
    monkeypatch.setattr(transfer.Builder, "build", lambda builder, stages: {})
    monkeypatch.setattr(transfer, "git_state", lambda: {"git_sha": next(commits)})

    def record(tracker: Tracker, cells: object, stage: SimpleNamespace) -> None:
        tracker.record("transfer", "matrix", {}, {}, {}, {}, key=stage.key)

    monkeypatch.setattr(transfer, "record", record)
    for _ in range(2):
        result = CliRunner().invoke(transfer.app, ["--grid", "tiny", "--runs-dir", str(runs)])
        assert result.exit_code == 0, result.output
        (run,) = Store(check(runs)).runs("tiny", "transfer")
        assert run.data.tags["git_sha"] == "one"


def test_a_server_that_died_is_told_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transfer, "comparable", lambda *arguments: [fakes.cells(["diffro", "rrpo"], [1])])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    result = CliRunner().invoke(transfer.app, ["--grid", "tiny", "--runs-dir", str(tmp_path / "runs")])
    assert result.exit_code == 2
    assert "the tracking store does not answer" in result.output
    assert not (tmp_path / "runs" / "stages").exists()


@pytest.mark.parametrize(("worlds", "compared"), [(["0", "1"], "0"), (["1", "2"], "2"), (["2", "1"], "1")])
def test_the_installed_world_is_compared_and_without_it_the_newest(
    worlds: list[str], compared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    records = [
        SimpleNamespace(
            label=arm, seed=1, profile="tiny", world_hash=world, params={"world.seed": world}, recorded=k, tags={}
        )
        for k, (world, arm) in enumerate((world, arm) for world in worlds for arm in ("a", "b"))
    ]
    store = SimpleNamespace(grids=lambda: ["tiny"], records=lambda grid: records)
    monkeypatch.setattr(transfer, "Store", lambda folder: store)
    monkeypatch.setattr(transfer, "is_stored", lambda cell, root: True)
    monkeypatch.setattr(transfer, "_cell_of", lambda record: SimpleNamespace(policy=True, world=record.world_hash))
    folder = SimpleNamespace(exists=True, root=tmp_path)
    assert [[cell.world for cell in cells] for cells in transfer.comparable(folder, "tiny")] == [[compared] * 2]  # type: ignore[arg-type, attr-defined]
