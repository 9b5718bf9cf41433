"""The command that measures the transfer matrix; `tests/rrpo/judges` tests the matrix itself."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakes
import pandas as pd
import pytest
from typer.testing import CliRunner

from ablations import transfer
from ablations.grids import arms
from ablations.tracking.cell_file import CELL_FILE, cell_json
from ablations.tracking.reader import Store
from ablations.tracking.recorder import Tracker
from ablations.tracking.records import Record
from ablations.tracking.runs_folder import check
from rrpo.errors import InputError
from rrpo.experiment.cell import Cell
from rrpo.profiles import PROFILES


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


def recorded(label: str, world: str = "0", profile: str = "tiny", time: int = 0) -> SimpleNamespace:
    return SimpleNamespace(label=label, seed=1, profile=profile, world_hash=world, world=world, recorded=time, tags={})


def compared(
    monkeypatch: pytest.MonkeyPatch, records: list[SimpleNamespace], profile: str | None = None
) -> list[SimpleNamespace]:
    """Return the records of the compared cells, all of one seed; the arm ``lost`` is not stored, and ``rm`` has no policy."""
    store = SimpleNamespace(grids=lambda: ["tiny"], records=lambda grid: records)
    monkeypatch.setattr(transfer, "Store", lambda folder: store)
    monkeypatch.setattr(transfer, "is_stored", lambda cell, root: cell.record.label != "lost")
    monkeypatch.setattr(
        transfer, "_cell_of", lambda record: SimpleNamespace(policy=record.label != "rm", record=record)
    )
    folder = SimpleNamespace(exists=True, root=Path())
    (cells,) = transfer.comparable(folder, "tiny", profile)  # type: ignore[arg-type]
    return [cell.record for cell in cells]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("worlds", "world"), [(["0", "1"], "0"), (["1", "2"], "2"), (["2", "1"], "1")])
def test_the_installed_world_is_compared_and_without_it_the_newest(
    worlds: list[str], world: str, monkeypatch: pytest.MonkeyPatch
):
    cells = itertools.product(worlds, ("a", "lost", "rm", "b"))
    records = [recorded(arm, world, time=time) for time, (world, arm) in enumerate(cells)]
    assert [(each.label, each.world_hash) for each in compared(monkeypatch, records)] == [("a", world), ("b", world)]


def test_only_cells_of_one_profile_are_compared(monkeypatch: pytest.MonkeyPatch):
    records = [recorded(arm, profile=profile) for profile in ("tiny", "smoke") for arm in ("a", "b")]
    with pytest.raises(InputError, match=r"several profiles\s+got: smoke, tiny"):
        compared(monkeypatch, records)
    assert compared(monkeypatch, records, "tiny") == records[:2]


def test_a_cell_that_this_code_would_build_otherwise_is_not_compared(tmp_path: Path):
    cell = Cell(label="rrpo", arm=arms()["rrpo"], seed=1, profile=PROFILES["smoke"])
    record = Record(label="rrpo", seed=1, cell_hash=cell.hash, find=lambda: tmp_path)
    assert transfer._cell_of(record) is None, "without a file"
    (tmp_path / CELL_FILE).write_text(cell_json(cell))
    found = transfer._cell_of(record)
    assert found is not None
    assert found.hash == cell.hash
    assert transfer._cell_of(replace(record, cell_hash="0" * 32)) is None
    (tmp_path / CELL_FILE).write_text("{}")
    assert transfer._cell_of(record) is None


def test_a_matrix_is_recorded_with_its_cells_and_the_means_on_and_off_the_diagonal(tmp_path: Path):
    path = tmp_path / "transfer.parquet"
    columns = ["samples_of", "judged_by", "accuracy"]
    rows = [("diffro", "diffro", 0.9), ("diffro", "rrpo", 0.5), ("rrpo", "diffro", 0.3), ("rrpo", "rrpo", 0.7)]
    pd.DataFrame(rows, columns=columns).to_parquet(path)
    calls: list[Any] = []
    tracker = SimpleNamespace(
        folder=SimpleNamespace(root=tmp_path), record=lambda *arguments, key: calls.append((*arguments, key))
    )
    cells = fakes.cells(["diffro", "rrpo"], [1])
    transfer.record(tracker, cells, SimpleNamespace(path=lambda root: root, key="k"))  # type: ignore[arg-type]
    ((kind, _, tags, params, metrics, files, key),) = calls
    assert (kind, key, files) == ("transfer", "k", {"transfer.parquet": path})
    assert tags == {"profile": "smoke", "world_hash": "world-a", "seed": "1"}
    assert params == {"cell.diffro": cells[0].hash, "cell.rrpo": cells[1].hash}
    assert metrics == pytest.approx({"own_accuracy": 0.8, "other_accuracy": 0.4})
