"""Reports from MLflow alone: same bytes each time, pooled by cell hash, a clear message for every gap."""

from __future__ import annotations

from pathlib import Path

import fakes
import pytest
from fixtures import Run
from typer.testing import CliRunner, Result

from ablations import plan, tracking
from ablations.grids import GRIDS, Grid
from ablations.jobs import record_cell
from ablations.runs_folder import check
from ablations.summary import table
from ablations.tracking import Tracker
from reports.run import app
from reports.store import select
from rrpo.cell import Cell
from rrpo.stages import Context, materialise

ARMS = ["sft", "diffro", "ls", "rrpo"]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GRIDS, "tiny", Grid(cells=lambda profile, seeds: fakes.cells(ARMS, seeds), profile="smoke"))


def store_cells(runs: Path, cells: list[Cell], grid: str = "tiny") -> None:
    """Build and record cells in this process, which is quicker than starting workers."""
    folder = check(runs)
    tracking.create(folder, grid)
    tracker = Tracker(folder, grid, {}, {})
    for cell in cells:
        for stage in cell.stages.values():
            materialise(stage, folder.root, Context())
        record_cell(cell, folder.root, tracker, lambda done, total: None)


def report(runs: Path, out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--runs-dir", str(runs), "--out", str(out), *arguments])


def test_a_report_has_table_and_figure_the_same_bytes_each_time(runs: Path, tmp_path: Path):
    store_cells(runs, fakes.cells(ARMS, [1, 2, 3]))
    for name in ("one", "two"):
        result = report(runs, tmp_path / name, "--grid", "tiny")
        assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {"table.md", "table.csv", "effects.csv", "goodhart.pdf", "goodhart.png"}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    text = (tmp_path / "one" / "table.md").read_text()
    for word in (
        "The world is simulated",
        "A seed redraws",
        "12 cells",
        "95 % t-interval",
        "| rrpo | 3 |",
        "Interim, n = 3",
    ):
        assert word in text
    pdf = (tmp_path / "one" / "goodhart.pdf").read_bytes()
    assert b"/Type3" not in pdf, "fonts are embedded as TrueType"


def test_the_report_and_the_run_print_the_same_table(runs: Path, run: Run):
    outcome, _ = run(fakes.cells(ARMS, [1]))
    assert outcome.table is not None
    assert table(select(runs, "tiny").records, dict.fromkeys(ARMS, 1)) == outcome.table


def test_a_cell_that_was_recorded_twice_counts_once(runs: Path):
    cells = fakes.cells(ARMS, [1])
    store_cells(runs, cells)
    store_cells(runs, cells)
    assert len(select(runs, "tiny").records) == 4


def test_a_superseded_cell_is_left_out_and_said_to_be(runs: Path):
    store_cells(runs, fakes.cells(["diffro"], [1]))
    store_cells(runs, fakes.cells(["diffro"], [1], {"diffro/1": Path("other-config")}))
    selection = select(runs, "tiny")
    assert len(selection.records) == 1
    assert any("1 cells that a later version" in note for note in selection.notes)


def test_another_world_is_left_out_and_said_to_be(runs: Path):
    store_cells(runs, fakes.cells(["diffro"], [1, 2]))
    store_cells(runs, fakes.cells(["diffro"], [1], world="b"))
    selection = select(runs, "tiny")
    assert {record.world_hash for record in selection.records} == {"world-b"}
    assert any("2 cells of another world" in note for note in selection.notes)


@pytest.mark.parametrize("labels", [["sft"], ["diffro"], ["sft", "rrpo"]])
def test_one_seed_one_arm_give_an_honest_table(runs: Path, tmp_path: Path, labels: list[str]):
    store_cells(runs, fakes.cells(labels, [1]))
    result = report(runs, tmp_path / "out", "--grid", "tiny")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "out" / "table.md").read_text()
    assert "nan" not in text
    assert (tmp_path / "out" / "goodhart.pdf").exists() == (labels != ["sft"])


def test_missing_cells_are_counted(runs: Path):
    store_cells(runs, fakes.cells(ARMS, [1]) + fakes.cells(["rrpo"], [2]))
    selection = select(runs, "tiny")
    assert "Missing cells: sft 1, diffro 1, ls 1." in table(selection.records, selection.planned).notes


def test_a_grid_of_reward_models_has_a_table_and_no_figure(runs: Path, tmp_path: Path):
    store_cells(runs, fakes.cells(["ls", "adv"], [1], policy=False))
    result = report(runs, tmp_path / "out", "--grid", "tiny")
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"table.md", "table.csv"}


def test_nothing_to_report_on_gets_one_message(runs: Path, tmp_path: Path):
    refused = {
        ("--grid", "nosuch"): "no grid of that name",
        ("--grid", "full"): "run it first: python -m ablations.run --grid full",
    }
    for arguments, words in refused.items():
        result = report(runs, tmp_path / "out", *arguments)
        assert result.exit_code == 2
        assert words in result.output
    result = report(tmp_path / "none", tmp_path / "out", "--grid", "full")
    assert result.exit_code == 2
    assert "no runs folder" in result.output
    tracking.create(check(runs), "tiny")
    result = report(runs, tmp_path / "out", "--grid", "tiny")
    assert result.exit_code == 2
    assert "no cell of the grid is complete" in result.output
    assert not (tmp_path / "out").exists()


def test_an_unknown_profile_and_a_bad_out_get_one_message(runs: Path, tmp_path: Path):
    store_cells(runs, fakes.cells(["diffro"], [1]))
    result = report(runs, tmp_path / "out", "--grid", "tiny", "--profile", "huge")
    assert result.exit_code == 2
    assert "use one of: smoke" in result.output
    (tmp_path / "file").write_text("mine")
    result = report(runs, tmp_path / "file", "--grid", "tiny")
    assert result.exit_code == 2
    assert "cannot be written there" in result.output


def test_plan_agrees_with_what_was_recorded(runs: Path):
    cells = fakes.cells(["diffro"], [1])
    store_cells(runs, cells)
    asked = plan.Request(grid="tiny", cells=tuple(cells), device="cpu", workers=1, folder=check(runs))
    assert plan.make(asked).todo == []
