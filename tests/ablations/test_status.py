"""`ablations.status` with several invocations, and without a store that answers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import fakes
import pytest
from typer.testing import CliRunner

from ablations import status
from ablations.execution.planned import read_plan, write_plan
from ablations.tracking import recorder
from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import check
from rrpo.pipeline.claims import Claims
from rrpo.profiles import in_world


def test_a_later_invocation_hides_no_cell_of_a_former_one(runs: Path):
    folder = check(runs)
    recorder.create(folder, "tiny")
    first = fakes.cells(["diffro", "rrpo"], [1, 2])
    write_plan(folder, "tiny", first)
    assert Claims(folder.claims).take(first[3].stages["optimized"].path(runs).name)
    write_plan(folder, "tiny", fakes.cells(["diffro"], [1]))
    rows = status.status(Store(folder), "tiny")
    assert {row.cell: row.state for row in rows} == {cell.name: "waiting" for cell in first[:3]} | {"rrpo/2": "at work"}
    assert status.summary(rows) == "3 waiting, 1 at work"


def test_a_cell_that_is_planned_anew_takes_its_own_place_alone(runs: Path):
    folder = check(runs)
    (old,) = fakes.cells(["diffro"], [1])
    (new,) = fakes.cells(["diffro"], [1], {"diffro/1": Path("other-config")})
    elsewhere = replace(old, profile=replace(old.profile, name="another"))
    other_world = replace(old, profile=in_world(old.profile, 1))
    for cell in (old, elsewhere, other_world, new):
        write_plan(folder, "tiny", [cell])
    assert [(cell.hash, cell.profile, cell.world) for cell in read_plan(folder, "tiny")] == [
        (elsewhere.hash, "another", 0),
        (other_world.hash, "smoke", 1),
        (new.hash, "smoke", 0),
    ]


def test_cells_of_two_worlds_are_told_apart(runs: Path):
    folder = check(runs)
    recorder.create(folder, "tiny")
    (cell,) = fakes.cells(["diffro"], [1])
    write_plan(folder, "tiny", [cell, replace(cell, profile=in_world(cell.profile, 1))])
    rows = status.status(Store(folder), "tiny")
    assert [(row.cell, row.profile) for row in rows] == [("diffro/1", "smoke"), ("diffro/1", "smoke-world1")]
    shown = CliRunner().invoke(status.app, ["--runs-dir", str(runs)]).output
    assert "smoke-world1" in shown


@pytest.mark.parametrize("content", ["", '[["diffro/1", "h1", [', '[["diffro/1", "h1", []]]'])
def test_a_damaged_plan_counts_as_none_and_is_written_anew(runs: Path, content: str):
    folder = check(runs)
    (runs / "plans").mkdir()
    (runs / "plans" / "tiny.json").write_text(content)
    assert read_plan(folder, "tiny") == []
    (cell,) = fakes.cells(["diffro"], [1])
    write_plan(folder, "tiny", [cell])
    assert [planned.hash for planned in read_plan(folder, "tiny")] == [cell.hash]


def test_a_moved_folder_whose_store_stops_answering_gets_the_one_message(runs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ablations.tracking.reader.PATIENCE", 0.1)
    with closing(sqlite3.connect(runs / "mlflow.db", isolation_level=None)) as connection:

        def answered_once(store: Store) -> list[str]:
            connection.execute("BEGIN EXCLUSIVE")
            return ["tiny"]

        monkeypatch.setattr(Store, "grids", answered_once)
        result = CliRunner().invoke(status.app, ["--runs-dir", str(runs)])
        connection.execute("ROLLBACK")
    assert result.exit_code == 2, result.output
    assert "the tracking store does not answer" in result.output
