"""Reports from MLflow alone: same bytes each time, pooled by cell hash, a clear message for every gap."""

from __future__ import annotations

import json
from pathlib import Path

import fakes
import pytest
from fixtures import Run
from stored import ARMS, report, store_cells

from ablations import plan, tracking
from ablations.errors import InputError
from ablations.grids import GRIDS, Grid
from ablations.runs_folder import check
from ablations.store import Store
from ablations.summary import table
from ablations.tracking import Tracker
from reports.store import select


def test_a_report_has_table_and_figure_the_same_bytes_each_time(runs: Path, tmp_path: Path):
    store_cells(runs, fakes.cells(ARMS, [1, 2, 3]))
    for name in ("one", "two"):
        result = report(runs, tmp_path / name, "--grid", "tiny")
        assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "one").iterdir()}
    tables = {"table", "effects", "ablation", "reward_models", "overoptimisation", "published"}
    figures = {"goodhart", "forest", "seeds", "training", "pareto", "confusion", "spectrograms"}
    assert names == {f"{name}.{ending}" for name in tables for ending in ("md", "csv", "tex", "html")} | {
        f"{name}.{ending}" for name in figures for ending in ("pdf", "png")
    } | {"report.html"}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    text = (tmp_path / "one" / "table.md").read_text()
    for word in (
        "The world is simulated",
        "no test before every arm has the planned number",
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
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"table.{ending}" for ending in ("md", "csv", "tex", "html")} | {"report.html"}


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


def test_format_control_and_metric_are_checked_and_obeyed(runs: Path, tmp_path: Path):
    store_cells(runs, fakes.cells(ARMS, [1, 2]))
    for arguments, words in {
        ("--format", "docx"): "use one of: md, csv, tex, html",
        ("--control", "nosuch"): "use one of: sft, diffro, ls, rrpo",
        ("--metric", "nosuch"): "no record holds that metric",
    }.items():
        result = report(runs, tmp_path / "out", "--grid", "tiny", *arguments)
        assert result.exit_code == 2
        assert words in result.output
    assert not (tmp_path / "out").exists()
    result = report(
        runs, tmp_path / "out", "--grid", "tiny", "--format", "csv", "--control", "sft", "--metric", "hack_rate"
    )
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "out" / "table.md").exists()
    assert "p_control" in (tmp_path / "out" / "table.csv").read_text()
    assert (tmp_path / "out" / "ablation.csv").read_text().startswith("variant,arm,n,hack_rate_mean")


def test_grids_of_one_world_are_pooled_and_of_two_refused(runs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(GRIDS, "more", Grid(cells=lambda profile, seeds: fakes.cells(["adv"], seeds), profile="smoke"))
    shared = fakes.cells(["diffro"], [1])
    store_cells(runs, shared)
    store_cells(runs, [*shared, *fakes.cells(["adv"], [1])], "more")
    pooled = select(runs, ["tiny", "more"])
    assert [record.label for record in pooled.records] == ["diffro", "adv"], "a shared cell counts once"
    assert pooled.grid == "tiny+more"
    store_cells(runs, fakes.cells(["ls"], [1], world="b"), "more")
    with pytest.raises(InputError, match="different worlds"):
        select(runs, ["tiny", "more"])


def test_cells_of_two_versions_are_refused_or_said(runs: Path):
    store_cells(runs, fakes.cells(["diffro", "ls"], [1]))
    folder = select(runs, "tiny").records[0].folder
    path = folder / "scored" / "stage.json"
    stage = json.loads(path.read_text())
    path.write_text(json.dumps(stage | {"version": stage["version"] + 1}))
    with pytest.raises(InputError, match="different versions"):
        select(runs, "tiny")
    assert any("MIXED VERSIONS" in note for note in select(runs, "tiny", mixed=True).notes)


def test_failed_and_diverged_cells_are_counted(runs: Path):
    cells = fakes.cells(["diffro"], [1, 2, 3])
    store_cells(runs, cells[:1])
    tracker = Tracker(check(runs), "tiny", {}, {})
    tracker.record_failure(cells[1], "RuntimeError: planted", "log")
    tracker.record_failure(cells[2], "DivergedError: policy step 3: loss nan", "log")
    assert "Failed cells: 2, of which 1 diverged." in select(runs, "tiny").notes


def test_the_report_is_kept_on_the_newest_invocation(runs: Path, run: Run, tmp_path: Path):
    run(fakes.cells(["diffro", "rrpo"], [1]))
    assert report(runs, tmp_path / "out", "--grid", "tiny", "--format", "md").exit_code == 0
    store = Store(check(runs))
    kept = store.client.list_artifacts(store.invocations("tiny")[-1], "report")
    assert "report/report.html" in {file.path for file in kept}


def test_plan_agrees_with_what_was_recorded(runs: Path):
    cells = fakes.cells(["diffro"], [1])
    store_cells(runs, cells)
    asked = plan.Request(grid="tiny", cells=tuple(cells), device="cpu", workers=1, folder=check(runs))
    assert plan.make(asked).todo == []
