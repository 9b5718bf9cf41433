"""Complete runs of quick cells with real workers and a real MLflow store, read back."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import fakes
import pytest
from fixtures import Run, wait_until_started
from rich.console import Console

from ablations.execution import jobs, plan, runner
from ablations.execution.estimate import Estimator
from ablations.execution.launchers.remote import JobPool
from ablations.execution.request import Request
from ablations.failures import Failure
from ablations.rendering.sheet import Sheet
from ablations.stats.family import primary
from ablations.tracking import recorder, records
from ablations.tracking.reader import Store
from ablations.tracking.recorder import Tracker, cell_params
from ablations.tracking.runs_folder import check
from rrpo.errors import InputError
from rrpo.pipeline.stages import Context, materialise

ARMS = ["sft", "diffro", "rrpo"]


def runs_of(store: Store, grid: str, kind: str) -> list:
    experiment = store.client.get_experiment_by_name(grid)
    assert experiment is not None
    return list(store.client.search_runs([experiment.experiment_id], f"tags.kind = '{kind}'"))


def test_a_grid_runs_is_recorded_and_is_not_run_again(runs: Path, run: Run):
    cells = fakes.cells(ARMS, [1, 2])
    outcome, text = run(cells, workers=2)
    assert (outcome.status, outcome.done) == (0, 6)
    assert "cell 6 of 6 done" in text
    assert text.count("is complete (estimates only)") == 1, (
        "after the seed that completed first; the last table is the result"
    )

    built = fakes.built(runs)
    assert len(built) == len(set(built)) == 1 + 2 + 3 * 6, (
        "every distinct stage once: the codec, one SFT per seed, three stages per cell"
    )
    codec = next((runs / "stages").glob("codec-*/threads.txt")).read_text()
    assert codec.startswith("1 ")

    store = Store(check(runs))
    assert store.states("tiny")[0].keys() == {cell.hash for cell in cells}
    (parent,) = store.runs("tiny", "parent")
    assert parent.data.params["planned_n"] == "2"
    assert parent.info.status == "FINISHED"
    alone = store.client.search_runs([store.experiment_id("tiny")])
    assert sorted(r.info.run_name for r in alone) == sorted(cell.name for cell in cells), (
        "MLflow's table shows only cells"
    )
    outcomes = {(r.data.params["arm"], int(r.data.params["seed"])): r.data.metrics["clean_success"] for r in alone}
    assert outcomes == primary().values(store.records("tiny"))
    assert {r.data.params["invocation"] for r in alone} == {parent.info.run_name}

    before = len(store.runs("tiny", "parent"))
    again, text = run(cells)
    assert fakes.built(runs) == built
    assert again.table == outcome.table
    assert len(store.runs("tiny", "parent")) == before, "nothing is written if nothing is missing"


def test_what_a_cell_leaves_in_mlflow(runs: Path, run: Run):
    (cell,) = fakes.cells(["rrpo"], [1])
    run([cell])
    store = Store(check(runs))
    (recorded,) = runs_of(store, "tiny", "cell")
    tags = recorded.data.tags
    assert recorded.info.run_name == "rrpo/1"
    assert tags["complete"] == tags["cell_hash"] == cell.hash
    assert {"grid", "arm", "seed", "world_hash", "git_sha", "dirty", "profile", "kind"} <= tags.keys()
    (invocation,) = store.runs("tiny", "parent")
    assert recorded.data.params == cell_params(cell) | {"invocation": invocation.info.run_name}
    assert invocation.info.start_time < recorded.info.end_time <= invocation.info.end_time
    assert len(store.client.get_metric_history(recorded.info.run_id, "train/kl_token")) == 20
    assert recorded.data.metrics["seconds"] >= 0
    assert recorded.data.metrics.keys() <= set(records.METRICS)
    assert {data.dataset.name: data.dataset.digest for data in recorded.inputs.dataset_inputs}["world"] == "world-a"
    assert {"mlflow.user", "mlflow.source.name"} <= tags.keys()
    folder = store.record(recorded.info.run_id).folder
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"audio/00_angry.wav", "curves.parquet", "points.parquet", "test_points.parquet"} <= names
    assert {"config.json", "environment.json", "log.txt", "optimized/stage.json"} <= names
    assert "step 2 of rrpo" in (folder / "log.txt").read_text()
    assert json.loads((folder / "environment.json").read_text())["numpy"]
    (record,) = store.records("tiny")
    assert record.config["arm.regularizers.epsilon"] == "0.1"
    assert "rm_accuracy_valid" in record.scalars, "scalars that are not metrics are among the artifacts"
    assert {"test_accuracy", "proxy_accuracy", "sqrt_kl"} <= set(record.points.columns)
    assert all("/" not in name for name in record.scalars)


def test_more_seeds_join_the_same_grid(runs: Path, run: Run):
    run(fakes.cells(ARMS, [1]))
    built = fakes.built(runs)
    outcome, text = run(fakes.cells(ARMS, [1, 2]))
    assert fakes.built(runs)[: len(built)] == built
    assert outcome.done == 6
    assert "cell 4 of 6 done" in text
    assert len(runs_of(Store(check(runs)), "tiny", "cell")) == 6


def test_a_seed_is_complete_when_all_its_cells_are_recorded(runs: Path, monkeypatch: pytest.MonkeyPatch):
    """A seed is in a table only once all its cells are recorded."""
    cells = fakes.cells(ARMS, [1, 2, 3])
    lost = cells[2]
    recorder.create(check(runs), "tiny")
    shown: list[str] = []
    monkeypatch.setattr(runner, "show_table", lambda sheet, to, title: shown.append(title))
    for shard in ((1, 2), (2, 2)):
        request = Request(grid="tiny", cells=tuple(cells), device="cpu", workers=1, folder=check(runs), shard=shard)
        grid_plan = plan.make(request)
        tracker = Tracker(request.folder, "tiny", {}, {}).start_invocation(cells, {})
        console = Console(file=StringIO())
        observer = runner.GridRun(grid_plan, Estimator(runs), console, tracker)
        for task in jobs.tasks(grid_plan.todo, grid_plan.amended, runs, "cpu", tracker):
            if task.key == jobs.cell_key(lost):
                observer.failed(task, Failure("bug", "planted", runs / "none", task.title))
            elif task.here:
                cell = task.arguments[0]
                for stage in cell.stages.values():
                    materialise(stage, runs, Context())
                observer.finished(task, jobs.record_cell(*task.arguments, lambda done, total: None), 0.0)
        observer.close("FINISHED")
    assert shown == [f"Interim: seed {seed} is complete (estimates only)" for seed in (2, 3)], "1 lacks a cell"
    assert [row[:2] for row in observer._so_far().rows] == [("sft", 3.0), ("diffro", 3.0), ("rrpo", 2.0)]


def test_a_cell_of_another_grid_is_recorded_again_but_not_built(runs: Path, run: Run):
    cells = fakes.cells(["diffro"], [1])
    run(cells)
    built = fakes.built(runs)
    outcome, _ = run(cells, grid="twin")
    assert (outcome.done, fakes.built(runs)) == (1, built)
    (record,) = Store(check(runs)).records("twin")
    assert (record.label, "copied_from" in record.tags) == ("diffro", False)


def test_without_its_stages_a_cell_of_another_grid_is_copied(runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    cells = fakes.cells(["diffro"], [1])
    run(cells)
    shutil.rmtree(runs / "stages")
    request = Request(grid="twin", cells=tuple(cells), device="cpu", workers=1, folder=check(runs))
    assert plan.make(request).states() == {cells[0].hash: "recorded by grid tiny, to be copied"}
    assert "0 done, 1 to copy from other grids, 0 to run" in plan.make(request).lines(Estimator(runs))[0]
    new_code = {"git_sha": "b" * 40, "dirty": "true", "diff_hash": "d" * 16, "code": "c" * 16}
    monkeypatch.setattr(runner, "git_state", lambda: new_code)
    monkeypatch.setattr("ablations.tracking.plugin_files.tags", lambda: {"plugins": '{"f00": "mine.py"}'})
    outcome, text = run(cells, grid="twin")
    assert (outcome.done, fakes.built(runs)) == (1, [])
    assert "cell 1 of 1 done: diffro/1" in text
    store = Store(check(runs))
    (original,), (copy,) = runs_of(store, "tiny", "cell"), runs_of(store, "twin", "cell")
    assert copy.data.metrics == original.data.metrics
    assert copy.data.tags["copied_from"] == "tiny"
    assert copy.data.tags["invocation"] != original.data.tags["invocation"]
    origin = {"git_sha", "dirty", "diff_hash", "code", "data_hash", "plugins"}
    assert {k: v for k, v in copy.data.tags.items() if k in origin} == {
        k: v for k, v in original.data.tags.items() if k in origin
    }
    (before,), (after,) = store.records("tiny"), store.records("twin")
    assert after.folder != before.folder
    assert (after.scalars, after.samples.equals(before.samples)) == (before.scalars, True)
    assert run(cells, grid="twin")[0].done == 1
    assert len(runs_of(store, "twin", "cell")) == 1
    run(cells, grid="another")
    assert runs_of(store, "another", "cell")[0].data.tags["copied_from"] == "tiny", "the first of them"


def test_the_record_of_an_arm_is_copied_for_a_setting_that_changes_nothing(runs: Path, run: Run):
    plain, other = fakes.cells(["diffro", "rrpo"], [1])
    run([plain])
    shutil.rmtree(runs / "stages")
    same = replace(plain, label="diffro@own", same_as="diffro")
    rest = [replace(plain, label="diffro@eps0.2"), replace(other, label="x@own", same_as="diffro")]
    cells = [same, *rest]
    request = Request(grid="settings", cells=tuple(cells), device="cpu", workers=1, folder=check(runs))
    copied = {same.hash: "recorded by grid tiny, to be copied"}
    assert plan.make(request).states() == copied | {cell.hash: "missing" for cell in rest}
    run([same], grid="settings")
    assert fakes.built(runs) == []
    (before,), (after,) = Store(check(runs)).records("tiny"), Store(check(runs)).records("settings")
    assert (after.label, after.cell_hash, after.config["label"]) == ("diffro@own", same.hash, "diffro@own")
    assert after.samples.equals(before.samples)


def test_a_record_that_lost_its_artifacts_is_not_copied(runs: Path, run: Run):
    cells = fakes.cells(["diffro"], [1])
    run(cells)
    (record,) = Store(check(runs)).records("tiny")
    shutil.rmtree(record.folder)
    shutil.rmtree(runs / "stages")
    assert run(cells, grid="twin")[0].done == 1
    assert "optimize diffro 1" in fakes.built(runs)


def test_the_fullest_record_is_copied(runs: Path, run: Run):
    plain, heard = fakes.cells(["diffro"], [1]), fakes.cells(["diffro"], [1], listener="voice")
    run(heard, grid="a")
    run(plain, grid="b")
    shutil.rmtree(runs / "stages")
    run(heard, grid="c")
    (copy,) = Store(check(runs)).records("c")
    assert copy.optional == {"voice"}
    assert copy.tags["copied_from"] == "a"


def test_failed_cells_stop_no_other_and_can_be_run_again(runs: Path, run: Run, tmp_path: Path):
    reasons = {1: ("raise", "planted failure"), 2: ("exit", "exit code 7"), 3: ("kill", "SIGKILL")}
    trouble = {f"rrpo/{seed}": tmp_path / kind for seed, (kind, _) in reasons.items()}
    for path in trouble.values():
        path.write_text(path.name)
    cells = fakes.cells(["diffro", "rrpo"], list(reasons), trouble)
    outcome, text = run(cells, workers=2)
    assert (outcome.status, outcome.done) == (1, 3)
    assert outcome.failures.keys() == trouble.keys()
    assert "Not complete: rrpo 3." in outcome.table.notes
    store = Store(check(runs))
    _, failed = store.states("tiny")
    lost = {run.data.tags["seed"]: run for run in runs_of(store, "tiny", "cell") if run.info.status == "FAILED"}
    for cell in cells[1::2]:
        kind, why = reasons[cell.seed]
        assert why in outcome.failures[cell.name]
        assert f"FAILED optimise {cell.name}" in text
        assert why in failed[cell.hash].reason
        assert failed[cell.hash].kind == ("bug" if kind == "raise" else "killed")
        log = (store.record(lost[str(cell.seed)].info.run_id).folder / "log.txt").read_text()
        assert why in log
        assert ("Traceback" in log) == (kind == "raise")

    for path in trouble.values():
        path.unlink()
    outcome, text = run(cells, workers=2)
    assert (outcome.status, outcome.done) == (1, 5), "a cell with a bug is not run again automatically"
    assert "--retry failed" in outcome.failures["rrpo/1"]
    outcome, _ = run(cells, workers=2, retry_failed=True)
    assert (outcome.status, outcome.done) == (0, 6)
    assert store.states("tiny")[1] == {}


def test_an_outcome_that_cannot_be_read_loses_no_cell(runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    def unreadable(*_: object) -> Sheet:
        raise KeyError("a column of mine")

    monkeypatch.setattr(runner, "table", unreadable)
    outcome, text = run(fakes.cells(["diffro"], [1, 2, 3]), workers=1)
    assert (outcome.status, outcome.done, outcome.table) == (0, 3, None)
    assert text.count("No table could be made: KeyError: 'a column of mine'") == 2, "once while it runs, and at its end"


def test_a_failed_cell_is_not_counted_as_done(runs: Path, run: Run, tmp_path: Path):
    trouble = tmp_path / "raise"
    trouble.write_text("raise")
    cells = fakes.cells(["diffro"], [1, 2, 3], {"diffro/1": trouble})
    run(cells[:1], workers=1)
    _, text = run(cells, workers=1)
    assert "cell 1 of 3 done" in text
    assert "cell 3 of 3 done" not in text, "the first is not run again"


def test_a_refused_first_job_ends_the_invocation(runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    class Refusing(JobPool):
        def start(self, *arguments: object) -> object:
            raise OSError("no such partition")

    monkeypatch.setattr(runner.launchers, "start", lambda options, workers, folder: Refusing(workers, folder))
    with pytest.raises(InputError, match="no such partition"):
        run(fakes.cells(["sft"], [1]))
    (parent,) = Store(check(runs)).runs("tiny", "parent")
    assert parent.info.status == "FAILED"


def test_no_policy_gives_the_table_of_reward_models(run: Run):
    outcome, _ = run(fakes.cells(["ls", "adv"], [1, 2], policy=False))
    assert [column.name for column in outcome.table.columns] == ["arm", "n", "rm_accuracy_valid", "rm_ece"]


def test_a_moved_and_a_copied_folder_open(runs: Path, run: Run, tmp_path: Path):
    cells = fakes.cells(["diffro"], [1])
    run(cells)
    copied = Path(shutil.copytree(runs, tmp_path / "copy"))
    moved = runs.rename(tmp_path / "elsewhere")
    for folder in (moved, copied):
        store = Store(check(folder))
        (record,) = store.records("tiny")
        assert record.folder.is_relative_to(folder)
        assert len(record.points) == 4
        audio = store.client.download_artifacts(record.run_id, "audio/00_angry.wav", str(tmp_path))
        assert Path(audio).stat().st_size > 1000
        outcome, _ = run(cells, folder=folder)
        assert outcome.done == 1
        run(fakes.cells(["rrpo"], [1]), folder=folder)
        assert {r.folder.is_relative_to(folder) for r in store.records("tiny")} == {True}


def test_an_unfinished_record_does_not_count(runs: Path, run: Run):
    cells = fakes.cells(["diffro"], [1])
    run(cells)
    store = Store(check(runs))
    (record,) = store.records("tiny")
    store.client.delete_tag(record.run_id, records.TAG_COMPLETE)
    assert store.records("tiny") == []
    outcome, _ = run(cells)
    assert outcome.done == 1
    assert len(store.records("tiny")) == 1


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import fakes
from pathlib import Path
from ablations import run
from ablations.grids import GRIDS, Grid
if __name__ == "__main__":
    trouble = {"rrpo/1": Path(sys.argv[2])}
    cells = lambda profile, seeds: fakes.cells(["diffro", "rrpo"], seeds, trouble)
    GRIDS.register("tiny", Grid(cells=cells, seeds=1, first_seed=1))
    sys.argv = ["ablations.run", "--grid", "tiny", "--workers", "1", "--runs-dir", sys.argv[3]]
    run.main()
"""


def test_ctrl_c_reports_what_is_done_and_the_next_run_goes_on(runs: Path, run: Run, tmp_path: Path):
    trouble = tmp_path / "trouble"
    trouble.write_text("slow")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(Path(__file__).parents[1]), str(trouble), str(runs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_until_started(process, trouble)
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=280)
    assert process.returncode == 130, text
    assert "Stopped. 1 of 2 cells are done" in text
    assert not list((runs / "stages").glob(".optimize*.[0-9]*")), "no partially built stage is left"
    trouble.unlink()
    outcome, text = run(fakes.cells(["diffro", "rrpo"], [1], {"rrpo/1": trouble}))
    assert (outcome.status, outcome.done) == (0, 2), text
    assert text.count("cell 2 of 2 done: rrpo/1") == 1
