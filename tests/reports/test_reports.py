"""Reports from MLflow only: the same bytes each time, pooling by cell hash, and a clear message for every missing part."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import fakes
import pytest
from fixtures import Run
from stored import ARMS, report, store_cells
from synthetic import record

from ablations.failures import Lost
from ablations.grids import GRIDS, Grid
from ablations.rendering.summary import table
from ablations.stats.inference import wilson
from ablations.tracking import recorder
from ablations.tracking.reader import Store
from ablations.tracking.recorder import Tracker
from ablations.tracking.records import TAG_CODE, TAG_COMPLETE, TAG_DIRTY, TAG_SHA
from ablations.tracking.runs_folder import check
from reports import page
from reports.loading import Selection, select
from reports.report import make
from reports.writers import FORMATS, LISTING
from rrpo.errors import InputError


def test_a_report_has_table_and_figure_the_same_bytes_each_time(reported: Path, tmp_path: Path):
    one, two = reported / "out", tmp_path / "out"
    result = report(reported / "runs", two, "--grid", "tiny")
    assert result.exit_code == 0, result.output
    names = {path.name for path in one.iterdir()}
    tables = {"components", "table", "effects", "outcomes", "ablation", "reward_models", "overoptimisation", "at_kl"}
    tables |= {"uptake_by_kind", "early_stopped", "ran_with", "criteria", "definitions"}
    figures = {"goodhart", "forest", "seeds", "training", "pareto", "confusion"}
    assert names == {f"{name}.{ending}" for name in tables for ending in ("md", "csv", "tex", "html")} | {
        f"{name}.{ending}" for name in figures for ending in ("pdf", "png")
    } | {"report.html", "answer.md", "figures.tex", LISTING}
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes()
    text = (one / "table.md").read_text()
    for word in (
        "The world is simulated",
        "A seed redraws",
        "12 cells",
        "95 % t-interval",
        "| rrpo | 3 |",
    ):
        assert word in text
    first = (one / "answer.md").read_text()
    assert first.startswith(
        "Interim (no seeds were planned): whether RRPO stops or reduces reward hacking is not yet tested;"
    )
    assert "| RRPO - DiffRO | 3 |" in first
    assert "![Proxy, gold and clean success](goodhart.png)\nAccuracy of" in first
    assert first.split("![")[0].strip() in result.output
    page_text = (one / "report.html").read_text()
    for words in (
        "evaluates stored checkpoints only. Arms shown: diffro, ls, rrpo.",
        "values below 0.5 % are left blank. Arms shown: sft, diffro, ls, rrpo.",
    ):
        assert words in page_text
    pdf = (one / "goodhart.pdf").read_bytes()
    assert b"/Type3" not in pdf, "fonts are embedded as TrueType"


@pytest.mark.usefixtures("undrawn")
def test_what_a_former_report_left_is_removed_and_nothing_else(reported: Path, tmp_path: Path):
    for folder in ("runs", "out"):
        shutil.copytree(reported / folder, tmp_path / folder)
    (tmp_path / "out" / "my notes.csv").write_text("mine")
    (tmp_path / "precious").write_text("mine")
    listing = tmp_path / "out" / LISTING
    (tmp_path / "out" / "folder").mkdir()
    ((key, names),) = json.loads(listing.read_text()).items()
    listing.write_text(json.dumps({key: [*names, "../precious", "..", "folder", 3]}))
    (tmp_path / "out" / "files.json").write_text('["my notes.csv"]')
    assert report(tmp_path / "runs", tmp_path / "out", "--grid", "tiny", "--format", "md").exit_code == 0
    suffixes = {path.suffix for path in (tmp_path / "out").iterdir()}
    assert suffixes == {".md", ".pdf", ".png", ".html", ".json", ".csv", ""}
    assert [path.name for path in (tmp_path / "out").glob("*.csv")] == ["my notes.csv"]
    assert (tmp_path / "precious").exists()
    assert (tmp_path / "out" / "folder").is_dir()


def store_of(runs: Path) -> Store:
    return Store(check(runs))


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
    assert any("1 cells superseded by a later version" in note for note in selection.notes)


def test_of_a_result_and_a_divergence_with_another_config_the_newer_one_counts(runs: Path):
    old, new, newest = (
        fakes.cells(["diffro", "rrpo"], [1], {f"{arm}/1": Path(config) for arm in ("diffro", "rrpo")})
        for config in ("old", "new", "newest")
    )
    store_cells(runs, old)
    tracker = Tracker(check(runs), "tiny", {}, {})
    tracker.start_invocation(new, {})
    tracker.record_failure(new[0], Lost("diverged", "loss nan"), "log")
    tracker.record_failure(new[1], Lost("oom", "out of memory"), "log")
    selection = select(runs, "tiny")
    assert [r.label for r in selection.records] == ["rrpo"], "no other failure takes a result away"
    assert selection.lost == {("diffro", 1): "diverged"}
    assert selection.planned == {"diffro": 1, "rrpo": 1}
    tracker.record_failure(new[1], Lost("diverged", "loss nan"), "log")
    with pytest.raises(InputError, match="every cell of the grid diverged since it was complete"):
        select(runs, "tiny")
    store_cells(runs, newest)
    selection = select(runs, "tiny")
    assert [r.cell_hash for r in selection.of("diffro")] == [newest[0].hash]
    assert selection.lost == {}


def test_several_worlds_are_refused_chosen_or_pooled_and_said(runs: Path, tmp_path: Path):
    store_cells(runs, fakes.cells(["diffro"], [1, 2]))
    store_cells(runs, fakes.cells(["diffro"], [1], world="b"))
    result = report(runs, tmp_path / "out", "--grid", "tiny")
    assert result.exit_code == 2
    assert "of different worlds got: world-a (2 cells), world-b (1 cells)" in " ".join(result.output.split())
    selection = select(runs, "tiny", world="world-a")
    assert {record.world_hash for record in selection.records} == {"world-a"}
    assert any("1 cells of other worlds" in note for note in selection.notes)
    with pytest.raises(InputError, match=r"worlds that have the same cells cannot be pooled\s+got: diffro/1\n"):
        select(runs, "tiny", mixed=True)
    store_cells(runs, fakes.cells(["diffro"], [3], world="c"), "apart")
    store_cells(runs, fakes.cells(["diffro"], [1, 2]), "apart")
    pooled = select(runs, "apart", mixed=True)
    assert {(r.seed, r.world_hash) for r in pooled.records} == {(1, "world-a"), (2, "world-a"), (3, "world-c")}
    assert any("MIXED WORLDS" in note for note in pooled.notes)
    with pytest.raises(InputError, match="use one of: world-a, world-b"):
        select(runs, "tiny", world="c")


def test_grids_with_other_results_for_the_same_arm_and_seed_are_not_reported_together(runs: Path):
    store_cells(runs, fakes.cells(["diffro"], [1, 2]))
    store_cells(runs, fakes.cells(["diffro"], [2, 3]), "same")
    assert {r.seed for r in select(runs, ["tiny", "same"]).records} == {1, 2, 3}
    store_cells(runs, fakes.cells(["diffro"], [2], {"diffro/2": Path("other-config")}), "other")
    with pytest.raises(InputError, match=r"two grids have different results[^\n]*\s+got: diffro/2: cells"):
        select(runs, ["tiny", "other"])


def test_development_seeds_are_reported_alone_or_not_at_all(runs: Path, monkeypatch: pytest.MonkeyPatch):
    tune = fakes.cells(["diffro", "rrpo"], [1000, 1001], world="b")
    recorder.create(check(runs), "tiny")
    Tracker(check(runs), "tiny", {}, {}).start_invocation(tune, {})
    store_cells(runs, tune)
    alone = select(runs, "tiny")
    assert ({r.seed for r in alone.records}, alone.plans) == ({1000, 1001}, ())
    cells = fakes.cells(["diffro", "rrpo"], [1, 2, 3])
    Tracker(check(runs), "tiny", {}, {}).start_invocation([*cells, *fakes.cells(["diffro", "rrpo"], [1002])], {})
    store_cells(runs, cells[:5])
    selection = select(runs, "tiny")
    assert {r.seed for r in selection.records} == {1, 2, 3}, "of two worlds, but the other one is not reported"
    assert selection.plans == (), "two arms of the grid's four are no plan of it"
    assert selection.planned == {"diffro": 3, "rrpo": 3}
    assert selection.counted.startswith("Of 6 planned cells 5 are complete, 1 missing")
    assert "Excluded: 4 cells with development seeds (1000 and above)." in selection.notes
    assert {r.seed for r in select(runs, "tiny", world="world-b").records} == {1000, 1001}
    monkeypatch.setitem(GRIDS._items, "more", GRIDS["tiny"])
    store_cells(runs, fakes.cells(["diffro"], [1000]), "more")
    assert {r.seed for r in select(runs, ["tiny", "more"]).records} == {1, 2, 3}


def test_several_versions_of_the_source_are_refused_or_said_and_uncommitted_code_is_said(runs: Path):
    store_cells(runs, fakes.cells(["diffro"], [1]), tags={TAG_SHA: "aaaa", TAG_DIRTY: "false"})
    assert not any("uncommitted" in note for note in select(runs, "tiny").notes)
    store_cells(runs, fakes.cells(["diffro"], [2]), tags={TAG_SHA: "bbbb", TAG_DIRTY: "true"})
    assert len(select(runs, "tiny").records) == 2, "another commit, the same source"
    newest = store_of(runs).records("tiny")[-1]
    store_of(runs).client.set_tag(newest.run_id, TAG_CODE, "another source")
    with pytest.raises(InputError, match=r"commit aaaa \(1 cells\), commit bbbb with changes"):
        select(runs, "tiny")
    notes = " ".join(select(runs, "tiny", mixed=True).notes)
    assert "MIXED VERSIONS" in notes
    assert "uncommitted changes: 1 cells" in notes


@pytest.mark.usefixtures("undrawn")
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
    assert "Not complete: sft 1, diffro 1, ls 1." in table(selection.records, selection.planned).notes


def test_a_grid_of_reward_models_has_a_table_and_no_figure(runs: Path, tmp_path: Path):
    store_cells(runs, fakes.cells(["ls", "adv"], [1], policy=False))
    result = report(runs, tmp_path / "out", "--grid", "tiny")
    assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    tables = {f"{name}.{ending}" for name in ("table", "reward_models") for ending in ("md", "csv", "tex", "html")}
    assert names == tables | {"report.html", "answer.md", LISTING}


def test_nothing_to_report_on_gets_one_message(runs: Path, tmp_path: Path):
    refused = {
        ("--grid", "nosuch"): "no grid with that name",
        ("--grid", "full"): "run the grid first: python -m ablations.run --grid full",
    }
    for arguments, words in refused.items():
        result = report(runs, tmp_path / "out", *arguments)
        assert result.exit_code == 2
        assert words in result.output
    result = report(tmp_path / "none", tmp_path / "out", "--grid", "full")
    assert result.exit_code == 2
    assert "no runs folder" in result.output
    recorder.create(check(runs), "tiny")
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


@pytest.mark.usefixtures("undrawn")
def test_format_and_metric_are_checked_and_obeyed(runs: Path, tmp_path: Path):
    store_cells(runs, fakes.cells(ARMS, [1, 2]))
    for arguments, words in {
        ("--format", "docx"): "use one of: md, csv, tex, html",
        ("--metric", "nosuch"): "no record has that metric",
        ("--metric", "hacked-share"): "use an outcome (clean_success, hacked_share, ",
    }.items():
        result = report(runs, tmp_path / "out", "--grid", "tiny", *arguments)
        assert result.exit_code == 2
        assert words in result.output, result.output
    assert not (tmp_path / "out").exists()
    result = report(runs, tmp_path / "out", "--grid", "tiny", "--format", "csv", "--metric", "hack_rate")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "out" / "table.md").exists()
    assert "clean_success_mean" in (tmp_path / "out" / "table.csv").read_text()
    assert (tmp_path / "out" / "ablation.csv").read_text().startswith("variant,arm,n,hack_rate_mean")


def test_grids_of_one_world_are_pooled_and_of_two_refused(runs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(
        GRIDS._items, "more", Grid(cells=lambda profile, seeds: fakes.cells(["adv"], seeds), profile="smoke")
    )
    shared = fakes.cells(["diffro"], [1])
    store_cells(runs, shared)
    store_cells(runs, [*shared, *fakes.cells(["adv"], [1])], "more")
    pooled = select(runs, ["tiny", "more"])
    assert [record.label for record in pooled.records] == ["diffro", "adv"], "a shared cell counts once"
    assert pooled.grid == "tiny+more"
    homes = [store_of(runs).experiment_id(name) for name in ("tiny", "more")]
    rows = dict(page.cells(pooled)["rows"])
    shared_home, own_home = (rows[arm][0][1].split("/")[-3] for arm in ("diffro", "adv"))
    assert shared_home in homes
    assert own_home == homes[1], "a run's link leads to its own grid's experiment"
    monkeypatch.setitem(GRIDS._items, "else", GRIDS["more"])
    store_cells(runs, fakes.cells(["ls"], [1], world="b"), "else")
    with pytest.raises(InputError, match="different worlds"):
        select(runs, ["tiny", "else"])
    assert len(select(runs, ["tiny", "else"], mixed=True).records) == 2


def test_cells_of_two_versions_are_refused_or_said(runs: Path):
    store_cells(runs, fakes.cells(["diffro", "ls"], [1]))
    folder = select(runs, "tiny").records[0].folder
    path = folder / "scored" / "stage.json"
    stage = json.loads(path.read_text())
    path.write_text(json.dumps(stage | {"version": stage["version"] + 1}))
    with pytest.raises(InputError, match="different versions"):
        select(runs, "tiny")
    assert any("MIXED VERSIONS" in note for note in select(runs, "tiny", mixed=True).notes)


def test_every_planned_cell_is_counted_in_every_caption(runs: Path, tmp_path: Path):
    """Eight planned cells: three complete (one after a failure), two failed, one diverged, one partial, one never started."""
    labels = ["diffro", "rrpo"]
    cells = fakes.cells(labels, [1, 2, 3, 4])
    by_name = {cell.name: cell for cell in cells}
    tracker = Tracker(check(runs), "tiny", {}, {})
    recorder.create(check(runs), "tiny")
    tracker.start_invocation(cells, {})
    tracker.record_failure(by_name["rrpo/1"], Lost("oom", "out of memory"), "log")
    store_cells(runs, [by_name[name] for name in ("diffro/1", "rrpo/1", "diffro/2")])
    tracker.record_failure(by_name["rrpo/2"], Lost("diverged", "policy step 3: loss nan"), "log")
    tracker.record_failure(by_name["diffro/3"], Lost("bug", "RuntimeError: planted"), "log")
    tracker.record_failure(by_name["rrpo/3"], Lost("oom", "out of memory"), "log")
    store_cells(runs, [by_name["diffro/4"]])
    half = next(r for r in store_of(runs).records("tiny") if (r.label, r.seed) == ("diffro", 4))
    store_of(runs).client.delete_tag(half.run_id, TAG_COMPLETE)
    elsewhere = fakes.cells(["diffro"], [9], world="b")
    tracker.record_failure(elsewhere[0], Lost("bug", "in another world"), "log")
    selection = select(runs, "tiny")
    counted = "Of 8 planned cells 3 are complete, 1 missing, 2 failed (1 bug, 1 oom), 1 partial, 1 diverged."
    assert selection.counted == counted
    assert selection.planned == {"diffro": 4, "rrpo": 4}
    shown = page.cells(selection)
    rows = {arm: [value and value[0] for value in values] for arm, values in shown["rows"]}
    assert shown["seeds"] == [1, 2, 3, 4]
    assert rows["rrpo"][1:] == ["diverged", "oom", "missing"]
    assert rows["diffro"][2:] == ["bug", "partial"]
    assert [(name, kind, reason) for name, _, kind, reason in shown["failed"]] == [
        ("diffro/3", "bug", "RuntimeError: planted"),
        ("rrpo/2", "diverged", "policy step 3: loss nan"),
        ("rrpo/3", "oom", "out of memory"),
    ]
    for name, address, *_ in shown["failed"]:
        assert store_of(runs).client.get_run(address.split("/")[-1]).data.tags["mlflow.runName"] == name
    result = make(selection)
    text = page.write(selection, result, [], tmp_path).read_text()
    assert "in MLflow; 3 failed or diverged." in text
    assert "<td>RuntimeError: planted</td>" in text
    left_out = (
        "Unless stated otherwise, diverged cells count as clean success 0 in contrasts and components one by one, and "
    )
    assert all(f"{counted} {left_out}all other means" in " ".join(sheet.notes) for sheet in result.sheets)
    assert all("A seed redraws" in " ".join(sheet.notes) for sheet in result.sheets)
    assert all(counted in figure.caption and "A seed redraws" in figure.caption for figure in result.figures)
    assert counted in result.methods
    over = next(sheet for sheet in result.sheets if sheet.name == "overoptimisation")
    assert over.row("rrpo")["diverged"] == wilson(1, 2)
    assert over.row("diffro")["diverged"] == wilson(0, 2)


def test_an_arm_of_which_nothing_is_complete_is_still_there(runs: Path):
    cells = fakes.cells(["diffro", "rrpo"], [1])
    tracker = Tracker(check(runs), "tiny", {}, {})
    recorder.create(check(runs), "tiny")
    tracker.start_invocation(cells, {})
    store_cells(runs, cells[:1])
    tracker.record_failure(cells[1], Lost("diverged", "loss nan"), "log")
    selection = select(runs, "tiny")
    assert selection.arms == ["diffro", "rrpo"]
    assert next(sheet for sheet in make(selection).sheets if sheet.name == "table").row("rrpo")["n"] == 0


@pytest.mark.usefixtures("undrawn")
def test_the_report_is_kept_in_a_run_of_its_own_and_described(runs: Path, run: Run, tmp_path: Path):
    run(fakes.cells(["diffro", "rrpo"], [1]))
    assert report(runs, tmp_path / "out", "--grid", "tiny", "--format", "md").exit_code == 0
    (tmp_path / "out" / "mine.txt").write_text("not the report's")
    assert report(runs, tmp_path / "out", "--grid", "tiny", "--format", "md").exit_code == 0
    store = store_of(runs)
    (run_of_it,) = store.runs("tiny", "report")
    artifacts = store.client.list_artifacts(run_of_it.info.run_id, "reports")
    names = {file.path for file in artifacts}
    assert {"reports/report.html", "reports/table.md", "reports/goodhart.pdf", f"reports/{LISTING}"} <= names
    assert "reports/mine.txt" not in names
    description = store.client.get_experiment(store.experiment_id("tiny")).tags["mlflow.note.content"]
    first, *_ = (tmp_path / "out" / "answer.md").read_text().splitlines()
    assert description.startswith(first)
    assert f"/runs/{run_of_it.info.run_id}/artifacts" in description
    assert "![" not in description, "MLflow would show a broken picture"


def test_labels_that_no_figure_knows_have_their_figures_too(runs: Path, tmp_path: Path):
    store_cells(runs, fakes.cells(["diffro@0", "diffro@0.9", "mine"], [1, 2]))
    result = report(runs, tmp_path / "out", "--grid", "tiny", "--metric", "hack_rate")
    assert result.exit_code == 0, result.output
    for name in ("goodhart", "seeds", "training", "pareto", "confusion"):
        assert (tmp_path / "out" / f"{name}.pdf").stat().st_size > 2000, name


def test_a_constant_outcome_and_many_seeds_give_words_and_no_traceback():
    """An arm that equals another in every seed; no NaN is shown."""
    cells = [record(arm, seed, 0.5 + 0.01 * seed) for arm in ("diffro", "twin") for seed in range(1, 23)]
    result = make(Selection("tiny", tuple(cells), {"diffro": 22, "twin": 22}, ()))
    text = "".join(write(sheet) for sheet in result.sheets for write in FORMATS.values()) + " ".join(result.answer)
    assert not re.search(r"(?<![a-z])nan", text.lower())
