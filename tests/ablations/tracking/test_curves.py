"""Live curves: a running cell's run exists while it runs, grows, and becomes the complete record."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import fakes
import pytest
from fixtures import Run

from ablations.execution.jobs import record_cell
from ablations.failures import Lost
from ablations.tracking import curves, recorder
from ablations.tracking.curves import Follower, Point, points, writer
from ablations.tracking.reader import Store
from ablations.tracking.recorder import Tracker
from ablations.tracking.records import METRICS
from ablations.tracking.runs_folder import check
from rrpo.experiment.cell import Cell
from rrpo.pipeline.stages import Context, materialise


@pytest.fixture
def tracker(runs: Path) -> Tracker:
    folder = check(runs)
    recorder.create(folder, "tiny", ["rrpo"])
    return Tracker(folder, "tiny", {}, {})


def first_points(cell: Cell, runs: Path) -> list[Point]:
    """The first points of a fake cell's curve, as its worker would have written them."""
    table = fakes.curve_rows(len(fakes.CHECKPOINTS), fakes.curve("rrpo", 1))
    return points(table.head(3).to_dict("records"), "train/")


def finish(cell: Cell, tracker: Tracker) -> None:
    for stage in cell.stages.values():
        materialise(stage, tracker.folder.root, Context())
    record_cell(cell, tracker.folder.root, tracker, lambda done, total: None)


def test_rows_become_the_documented_metrics():
    rows = [
        {"step": 0, "loss": 2.0, "kl_token": 0.03, "length": 40.0, "val_accuracy": math.nan},
        {"step": 1, "loss": 1.9},  # no judge measured this step
        {"step": 5, "loss": 1.5, "kl_token": 0.31, "val_accuracy": 0.75},
    ]
    assert points(rows, "train/") == [
        ("train/loss", 2.0, 0),
        ("train/kl_token", 0.03, 0),
        ("train/kl_rounded", 0.05, 0),
        ("train/loss", 1.5, 5),
        ("train/kl_token", 0.31, 5),
        ("train/val_accuracy", 0.75, 5),
        ("train/kl_rounded", 0.3, 5),
    ]
    assert points([{"step": 0, "test_accuracy": 0.5, "uptake": 0.1}], "evaluation/") == [
        ("evaluation/test_accuracy", 0.5, 0)
    ]


def test_every_metric_is_documented(documented: Callable[[str], list[str]]):
    assert documented("Metrics of a cell") == list(METRICS)


def test_what_a_worker_writes_is_read_once_and_whole(tmp_path: Path):
    watch = writer(curves.live_file(tmp_path, "optimize-1"))
    follower = Follower(tmp_path)
    assert follower.due()
    assert not follower.due(), "it is read at most every few seconds"
    assert follower.new("optimize-1") == []
    watch(0, {"loss": 1.0, "kl_token": 0.0})
    watch(1, {"loss": 1.0})
    assert follower.new("optimize-1") == [
        ("train/loss", 1.0, 0),
        ("train/kl_token", 0.0, 0),
        ("train/kl_rounded", 0.0, 0),
    ]
    assert follower.new("optimize-1") == []
    watch(5, {"loss": 0.5, "kl_token": 0.1})
    path = curves.live_file(tmp_path, "optimize-1")
    path.write_text(path.read_text() + '[["train/loss", 0.4')  # an incomplete line
    assert [value for name, value, _ in follower.new("optimize-1") if name == "train/loss"] == [0.5]
    watch, written = writer(path), path.read_bytes()  # a resumed optimization reports all its rows again
    assert written, "what another process writes stays as long as this one only waits for it"
    watch(0, {"loss": 1.0, "kl_token": 0.0})
    assert follower.new("optimize-1") == []
    for step in (5, 9):
        watch(step, {"loss": 0.5, "kl_token": 0.1})
    assert [step for _, _, step in follower.new("optimize-1")] == [9, 9, 9]


def test_a_line_of_which_a_full_disk_took_a_part_is_left_out(tmp_path: Path):
    watch, path = writer(curves.live_file(tmp_path, "optimize-1")), curves.live_file(tmp_path, "optimize-1")
    follower = Follower(tmp_path)
    watch(0, {"kl_token": 0.0})
    path.write_text(path.read_text() + '[["train/kl_token", 0.')
    for step in (5, 9):
        watch(step, {"kl_token": 0.1})
    assert {step for _, _, step in follower.new("optimize-1")} == {0, 9}
    watch(10, {"kl_token": 0.1})
    assert {step for _, _, step in follower.new("optimize-1")} == {10}


def test_a_run_grows_while_its_cell_is_at_work_and_becomes_the_record(tracker: Tracker, runs: Path):
    (cell,) = fakes.cells(["rrpo"], [1])
    store = Store(tracker.folder)
    tracker.show_cell(cell, first_points(cell, runs)[:4])
    tracker.show_cell(cell, first_points(cell, runs)[4:])
    (live,) = store.runs("tiny", "cell")
    assert (live.info.status, live.data.params["arm"]) == ("RUNNING", "rrpo")
    assert [p.step for p in store.client.get_metric_history(live.info.run_id, "train/kl_token")] == [1, 2, 3]
    assert store.states("tiny") == ({}, {}), "it does not count as complete"
    finish(cell, tracker)
    (run,) = store.runs("tiny", "cell")
    assert (run.info.run_id, run.info.status) == (live.info.run_id, "FINISHED")
    for name in ("train/kl_token", "train/kl_rounded"):
        history = store.client.get_metric_history(run.info.run_id, name)
        assert [point.step for point in history] == list(range(1, 21)), "no duplicate points"
    assert run.data.metrics.keys() <= set(METRICS)
    tracker.show_cell(cell, first_points(cell, runs))
    assert len(store.runs("tiny", "cell")) == 1


def test_a_grid_shows_its_cells_while_they_run(runs: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each optimization goes on once its cell has been shown."""
    monkeypatch.setattr(curves, "PERIOD", 0.0)
    held = {f"{arm}/1": tmp_path / arm for arm in ("diffro", "rrpo")}
    for file in held.values():
        file.write_text("slow")
    shown: list[tuple[str, set[str]]] = []
    real = Tracker.show_cell

    def watched(self: Tracker, cell: Cell, points: list[Point]) -> None:
        real(self, cell, points)
        (live,) = [r for r in Store(self.folder).runs("tiny", "cell") if r.data.params["arm"] == cell.label]
        shown.append((live.info.status, set(live.data.metrics)))
        held[cell.name].unlink(missing_ok=True)

    monkeypatch.setattr(Tracker, "show_cell", watched)
    outcome, _ = run(fakes.cells(["diffro", "rrpo"], [1], held), workers=1)
    assert outcome.status == 0
    assert not any(file.exists() for file in held.values()), "both were shown"
    assert {status for status, _ in shown} == {"RUNNING"}
    assert all({"train/kl_token", "train/kl_rounded"} <= metrics for _, metrics in shown)
    store = Store(check(runs))
    shown_runs = store.runs("tiny", "cell")
    assert [r.info.status for r in shown_runs] == ["FINISHED"] * 2
    assert len(store.client.get_metric_history(shown_runs[0].info.run_id, "train/kl_token")) == 20
    assert not list((runs / "progress").glob("*.jsonl"))


def test_a_failure_ends_the_run_and_the_next_try_replaces_it(tracker: Tracker, runs: Path):
    (cell,) = fakes.cells(["rrpo"], [1])
    store = Store(tracker.folder)
    first = first_points(cell, runs)
    tracker.show_cell(cell, first)
    tracker.record_failure(cell, Lost("diverged", "loss nan"), "its log")
    (failed,) = store.runs("tiny", "cell")
    _, last = max((step, value) for name, value, step in first if name == "train/kl_token")
    assert (failed.info.status, failed.data.metrics["train/kl_token"]) == ("FAILED", last), "with its curve"
    assert str(store.states("tiny")[1][cell.hash]) == "diverged: loss nan"
    again = Tracker(tracker.folder, "tiny", {}, {})
    again.show_cell(cell, first_points(cell, runs)[:4])
    (live,) = store.runs("tiny", "cell")
    assert live.info.run_id != failed.info.run_id
    assert "failed" not in live.data.tags
    finish(cell, again)
    (run,) = store.runs("tiny", "cell")
    assert (run.info.run_id, run.info.status) == (live.info.run_id, "FINISHED")


def test_processes_that_show_a_cell_share_its_run_and_any_completes_it(tracker: Tracker, runs: Path):
    (cell,) = fakes.cells(["rrpo"], [1])
    second = Tracker(tracker.folder, "tiny", {}, {})
    tracker.show_cell(cell, first_points(cell, runs))
    second.show_cell(cell, first_points(cell, runs)[:1])
    store = Store(tracker.folder)
    (live,) = store.runs("tiny", "cell")
    assert [p.step for p in store.client.get_metric_history(live.info.run_id, "train/kl_token")] == [1, 2, 3]
    finish(cell, second)
    (run,) = store.runs("tiny", "cell")
    assert run.info.run_id == live.info.run_id
    assert run.data.params == live.data.params, "existing params stay, because MLflow params are immutable"


def test_a_run_that_a_killed_process_left_is_replaced(tracker: Tracker, runs: Path):
    (cell,) = fakes.cells(["rrpo"], [1])
    tracker.show_cell(cell, first_points(cell, runs))
    store = Store(tracker.folder)
    (run,) = store.runs("tiny", "cell")
    store.client.set_terminated(run.info.run_id, "KILLED")  # as `reconcile` does
    Tracker(tracker.folder, "tiny", {}, {}).show_cell(cell, first_points(cell, runs)[:1])
    (live,) = store.runs("tiny", "cell")
    assert (live.info.run_id == run.info.run_id, live.info.status) == (False, "RUNNING")
