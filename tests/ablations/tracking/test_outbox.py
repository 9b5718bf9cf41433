"""Records for a store that is locked or fails: they wait, and each becomes exactly one run."""

from __future__ import annotations

import errno
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest
import sqlalchemy
from fixtures import Run
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from ablations.execution import runner
from ablations.execution.jobs import record_cell
from ablations.failures import Lost
from ablations.tracking import connection, recorder, replay
from ablations.tracking.connection import UnavailableError
from ablations.tracking.outbox import Entry, Outbox
from ablations.tracking.reader import Store
from ablations.tracking.recorder import Tracker
from ablations.tracking.records import Record
from ablations.tracking.runs_folder import RunsFolder, check
from rrpo.errors import InputError
from rrpo.experiment.cell import Cell
from rrpo.pipeline.stages import Context, materialise


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "WAIT", 0.2)
    monkeypatch.setattr(connection.trouble, "__defaults__", (0.2,))
    monkeypatch.setattr(replay, "PAUSE", 0.0)
    monkeypatch.setattr("ablations.tracking.reader.PATIENCE", 0.2)


@pytest.fixture
def tracker(runs: Path) -> Tracker:
    folder = check(runs)
    recorder.create(folder, "tiny")
    return Tracker(folder, "tiny", {}, {})


@contextmanager
def locked(runs: Path) -> Iterator[None]:
    """Another program locks the store's file."""
    with closing(sqlite3.connect(runs / "mlflow.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def record(tracker: Tracker, cell: Cell) -> Record:
    for stage in cell.stages.values():
        materialise(stage, tracker.folder.root, Context())
    return record_cell(cell, tracker.folder.root, tracker, lambda done, total: None)


def runs_by_name(store: Store) -> dict[str, list[str]]:
    number = store.experiment_id("tiny")
    by_name: dict[str, list[str]] = {}
    for run in store.client.search_runs([number]):
        by_name.setdefault(run.info.run_name, []).append(run.info.status)
    return by_name


def test_a_locked_store_is_asked_once_and_gets_everything_later(
    tracker: Tracker, runs: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(replay, "PAUSE", math.inf)
    asked: list[RunsFolder] = []
    monkeypatch.setattr(replay, "trouble", lambda folder: asked.append(folder) or connection.trouble(folder))
    first, second, third = fakes.cells(["sft", "diffro", "rrpo"], [1])
    below = tracker.start_invocation([first, second, third], {})
    record(below, first)
    asked.clear()
    with locked(runs):
        waiting = record(below, second)
        below.end_invocation("KILLED")  # replaced below
        below.record_failure(third, Lost("bug", "planted"), "log of three")
        assert len(asked) == 1
        assert len(waiting.points) == 4, "the waiting record can be read"
        assert "3 records wait" in below.waiting()
        assert "locked" in below.waiting()
        with pytest.raises(UnavailableError, match="does not answer"):
            Store(tracker.folder).states("tiny")
    below.end_invocation("FINISHED")
    assert below.waiting() == ""
    store = Store(tracker.folder)
    assert runs_by_name(store) == {"sft/1": ["FINISHED"], "diffro/1": ["FINISHED"], "rrpo/1": ["FAILED"]}, "only cells"
    records, lost = store.states("tiny")
    assert set(records) == {first.hash, second.hash}
    assert str(lost[third.hash]) == "bug: planted"
    assert records[second.hash].scalars == waiting.scalars
    assert records[second.hash].points.equals(waiting.points)
    assert waiting.folder.is_relative_to(runs / "artifacts"), "a record in memory finds its files after they were moved"
    (invocation,) = store.runs("tiny", "parent")
    assert invocation.info.status == "FINISHED"
    cells = store.runs("tiny", "cell")
    assert {(r.data.tags["invocation"], r.data.params["invocation"]) for r in cells} == {
        (invocation.data.tags["entry"], invocation.info.run_name)
    }
    assert all("mlflow.parentRunId" not in r.data.tags for r in cells)


def test_the_next_command_carries_the_outbox_over(tracker: Tracker, runs: Path):
    (cell,) = fakes.cells(["rrpo"], [1])
    with locked(runs):
        record(tracker, cell)
    moved = runs.rename(runs.with_name("moved"))  # with all waiting entries
    (restored,) = Store(check(moved)).records("tiny")
    assert restored.cell_hash == cell.hash
    assert restored.folder.is_relative_to(moved / "artifacts")
    assert (restored.folder / "audio" / "00_angry.wav").stat().st_size > 1000
    assert Outbox(moved / "outbox").pending() == {}


@pytest.mark.parametrize("moment", ["before the record", "in the midst of it"])
def test_another_mount_that_opens_the_folder_meanwhile_loses_no_artifact(
    tracker: Tracker, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
):
    """A container's `--plan` on a bind mount rewrites the stored artifact paths to paths that do not exist here."""
    cell, other_cell = fakes.cells(["diffro", "rrpo"], [1])
    first = record(tracker, cell)
    mount = tmp_path / "mount"

    def open_elsewhere() -> None:
        mount.symlink_to(runs)
        mounted = Store(RunsFolder(mount)).states("tiny")[0][cell.hash]
        assert mounted.folder.is_relative_to(mount)
        assert len(mounted.points) == 4
        mount.unlink()

    if moment == "before the record":
        open_elsewhere()
    else:
        real = replay.Replay._log_datasets
        monkeypatch.setattr(replay.Replay, "_log_datasets", lambda *args: (real(*args), open_elsewhere()))
    second = record(tracker, other_cell)
    assert not mount.exists(), "nothing is written outside the folder"
    assert [len(stored.points) for stored in (first, second)] == [4, 4]
    assert Outbox(runs / "outbox").pending() == {}
    records = Store(check(runs)).records("tiny")
    assert [len(stored.points) for stored in records] == [4, 4]
    assert all((stored.folder / "audio" / "00_angry.wav").is_relative_to(runs) for stored in records)


def test_artifacts_that_are_gone_are_said_to_be(tracker: Tracker):
    (cell,) = fakes.cells(["rrpo"], [1])
    written = record(tracker, cell)
    (stored,) = Store(tracker.folder).records("tiny")
    shutil.rmtree(stored.folder)
    for missing in (written, stored):
        with pytest.raises(InputError, match=r"gone\n.*rrpo/1, run .*there is no .*\n.*restore"):
            _ = missing.points


def test_a_run_whose_store_is_locked_ends_well_and_says_what_waits(
    runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    cells = fakes.cells(["diffro", "rrpo"], [1])
    real = runner.GridRun.run
    with closing(sqlite3.connect(runs / "mlflow.db", isolation_level=None)) as locking:

        def lock_and_run(*arguments: Any) -> None:
            locking.execute("BEGIN EXCLUSIVE")
            real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(runner.GridRun, "run", lock_and_run)
            outcome, _ = run(cells)
        assert (outcome.status, outcome.done) == (0, 2)
        assert "locked" in outcome.waiting
        assert outcome.table is not None
        assert [row[1] for row in outcome.table.rows] == [1.0, 1.0]
        locking.execute("ROLLBACK")
    built = fakes.built(runs)
    again, _ = run(cells)
    assert (again.status, again.done, again.waiting) == (0, 2, "")
    assert fakes.built(runs) == built
    assert again.table == outcome.table
    store = Store(check(runs))
    assert sorted(r.data.tags["mlflow.runName"] for r in store.runs("tiny", "cell")) == ["diffro/1", "rrpo/1"]
    assert {r.info.status for r in store.runs("tiny", "parent")} == {"FINISHED"}


@pytest.mark.parametrize(
    "step", ["create_run", "log_batch", "log_artifacts", "set_terminated", "set_tag", "log_inputs", "remove"]
)
def test_a_write_that_is_cut_off_anywhere_is_gone_on_with(tracker: Tracker, monkeypatch: pytest.MonkeyPatch, step: str):
    """The process dies after a step of the write; the store must not contain anything twice."""
    (cell,) = fakes.cells(["rrpo"], [1])
    owner = {"remove": Outbox, "log_artifacts": LocalArtifactRepository}.get(step, type(tracker.replay.client))
    real = getattr(owner, step)

    def cut(self, *args, **kwargs):
        if step != "remove":
            real(self, *args, **kwargs)
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, cut)
        with pytest.raises(SystemExit):
            record(tracker, cell)
    store = Store(tracker.folder)
    (stored,) = store.records("tiny")
    assert len(store.runs("tiny", "cell")) == 1
    history = store.client.get_metric_history(stored.run_id, "train/kl_token")
    assert [point.step for point in history] == list(range(1, 21))
    assert stored.params["seed"] == "1"
    assert len(stored.points) == 4
    assert Outbox(tracker.folder.outbox).pending() == {}


def test_a_cell_that_another_runner_has_recorded_is_not_recorded_twice(tracker: Tracker):
    (cell,) = fakes.cells(["rrpo"], [1])
    first = record(tracker, cell)
    second = record(Tracker(tracker.folder, "tiny", {}, {}), cell)
    assert second.run_id == first.run_id
    assert len(Store(tracker.folder).runs("tiny", "cell")) == 1


def test_an_entry_that_the_store_refuses_waits_and_stops_no_other(tracker: Tracker, monkeypatch: pytest.MonkeyPatch):
    bad, good = fakes.cells(["diffro", "rrpo"], [1])
    with monkeypatch.context() as patch:
        patch.setattr(recorder, "cell_params", lambda cell: {"a?b": "MLflow takes no such name"})
        tracker.record_cell(bad, {}, {}, "")
    assert "1 record waits" in tracker.waiting()
    assert "a?b" in tracker.waiting()
    record(tracker, good)
    store = Store(tracker.folder)
    assert {r.label for r in store.records("tiny")} == {"diffro", "rrpo"}, "it counts as done and is not run again"
    states = {run.data.tags["mlflow.runName"]: run.info.status for run in store.runs("tiny", "cell")}
    assert states == {"diffro/1": "RUNNING", "rrpo/1": "FINISHED"}


def test_an_entry_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    outbox = Outbox(tmp_path / "outbox")
    entry = Entry(key="cell-1", experiment="tiny", name="a/1", started=5, metrics={"a": 0.1})
    (tmp_path / "file").write_text("content")
    outbox.put(entry, {"audio/file": tmp_path / "file", "notes/text": "said"})
    (folder,) = outbox.pending()
    assert outbox.pending()[folder] == entry
    assert (folder / "artifacts" / "notes" / "text").read_text() == "said"
    assert (folder / "artifacts" / "audio" / "file").stat().st_ino == (tmp_path / "file").stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            outbox.put(replace(entry, key="cell-2"))
    assert list(outbox.pending().values()) == [entry]
    assert not [path for path in outbox.root.iterdir() if path.name.startswith(".cell")]
    newer = replace(entry, metrics={"a": 0.2})
    outbox.put(newer)
    assert list(outbox.pending().values()) == [newer]
    (folder,) = outbox.pending()
    (folder / "entry.json").write_text("{")
    assert outbox.pending() == {}


def test_a_sweep_meets_an_entry_that_is_finished_just_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    outbox = Outbox(tmp_path)
    (tmp_path / ".cell-1.5").mkdir()
    (tmp_path / ".cell-2.5").mkdir()
    os.utime(tmp_path / ".cell-2.5", (0, 0))
    real = Path.is_dir

    def finished(path: Path) -> bool:
        status = real(path)
        if path.name == ".cell-1.5" and status:
            path.rename(path.with_name("cell-1.5"))
        return status

    monkeypatch.setattr(Path, "is_dir", finished)
    outbox.sweep()
    assert [path.name for path in tmp_path.iterdir()] == ["cell-1.5"]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make the disk full for as many attempts as the first number of the returned list."""
    remaining = [0]
    real = Outbox.put

    def put(self: Outbox, *args: Any) -> None:
        if remaining[0]:
            remaining[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, *args)

    monkeypatch.setattr(Outbox, "put", put)
    return remaining


def test_what_a_full_disk_holds_up_is_written_once_there_is_room(tracker: Tracker, full_disk: list[int]):
    good, bad = fakes.cells(["diffro", "rrpo"], [1])
    full_disk[0] = 10**9
    below = tracker.start_invocation([good, bad], {})
    below.end_invocation("FINISHED")
    below.record_failure(bad, Lost("bug", "planted"), "its log")
    assert below.held_up().startswith("2 records: ")
    with pytest.raises(OSError, match="No space"):
        record(below, good)
    full_disk[0] = 0
    record(below, good)
    assert below.held_up() == ""
    store = Store(tracker.folder)
    records, lost = store.states("tiny")
    assert set(records) == {good.hash}
    assert str(lost[bad.hash]) == "bug: planted"
    (parent,) = store.runs("tiny", "parent")
    assert parent.info.status == "FINISHED"


def test_a_disk_that_is_full_for_the_summaries_alone_ends_no_run(
    run: Run, runs: Path, tmp_path: Path, full_disk: list[int], monkeypatch: pytest.MonkeyPatch
):
    trouble = tmp_path / "trouble"
    trouble.write_text("raise")
    cells = fakes.cells(["diffro", "rrpo"], [1], {"rrpo/1": trouble})
    monkeypatch.setattr(runner, "LOOK", 0.01)
    real = runner.GridRun.close

    def fill_up_and_close(*args: Any) -> None:
        full_disk[0] = 20
        real(*args)

    monkeypatch.setattr(runner.GridRun, "close", fill_up_and_close)
    real_failure = Tracker.record_failure

    def fill_up_and_record(*args: Any) -> None:
        full_disk[0] = 1
        real_failure(*args)

    monkeypatch.setattr(Tracker, "record_failure", fill_up_and_record)
    outcome, text = run(cells)
    assert (outcome.status, outcome.done, outcome.waiting) == (1, 1, "")
    assert text.count("PAUSED: the disk is full, which holds up ") == 1
    store = Store(check(runs))
    assert {r.info.status for r in store.runs("tiny", "parent")} == {"FAILED"}
    assert [str(why)[:3] for why in store.states("tiny")[1].values()] == ["bug"]


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
import fakes, os
from pathlib import Path
from ablations.tracking import recorder
from ablations.execution.jobs import record_cell
from ablations.tracking.runs_folder import check
from ablations.tracking.recorder import Tracker
from rrpo.pipeline.stages import Context, materialise
folder = check(Path(sys.argv[2]))
recorder.create(folder, "tiny")
cells = fakes.cells([f"arm{k}" for k in range(40)], [1])
tracker = Tracker(folder, "tiny", {}, {}).start_invocation(cells, {})
print("ready", flush=True)
for cell in cells:
    for stage in cell.stages.values():
        materialise(stage, folder.root, Context())
    record_cell(cell, folder.root, tracker, lambda done, total: None)
    print("recorded", flush=True)
"""


def started(script: str, tmp_path: Path, *arguments: object) -> subprocess.Popen[str]:
    path = tmp_path / "script.py"
    path.write_text(script)
    root = str(Path(__file__).parents[3])
    command = [sys.executable, str(path), str(Path(__file__).parents[1]), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": root})


@pytest.mark.parametrize("round_", [0, *(pytest.param(k, marks=pytest.mark.long) for k in range(1, 12))])
def test_kill_9_while_recording_loses_and_doubles_nothing(runs: Path, tmp_path: Path, round_: int):
    process = started(KILLED, tmp_path, runs)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert "recorded\n" in iter(process.stdout.readline, "")
    time.sleep(0.05 + 0.09 * round_)
    process.send_signal(signal.SIGKILL)
    process.wait()
    built = {line.split()[1] for line in fakes.built(runs) if line.startswith("score")}
    store = Store(check(runs))
    records = store.records("tiny")
    assert records
    assert len(records) in (len(built), len(built) - 1), "all except the cell that was being built or recorded"
    runs_of_cells = store.runs("tiny", "cell")
    assert len(runs_of_cells) == len(records) == len({record.cell_hash for record in records})
    assert {run.info.status for run in runs_of_cells} <= {"FINISHED"}
    for run in store.runs("tiny", "parent"):
        assert run.info.status == "KILLED"
        assert "has ended" in run.data.tags["ended_by"]


FRESH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import fakes, json
from ablations.tracking import recorder
from ablations.execution.jobs import record_cell
from ablations.tracking.runs_folder import check
from ablations.tracking.reader import Store
from ablations.tracking.recorder import Tracker
from rrpo.pipeline.stages import Context, materialise
folder = check(Path(sys.argv[2]))
sys.stdin.readline()
recorder.create(folder, "tiny")
(cell,) = fakes.cells([f"arm{sys.argv[3]}"], [1])
tracker = Tracker(folder, "tiny", {}, {}).start_invocation([cell], {})
for stage in cell.stages.values():
    materialise(stage, folder.root, Context())
record_cell(cell, folder.root, tracker, lambda done, total: None)
tracker.end_invocation("FINISHED")
print(json.dumps([tracker.waiting(), len(Store(folder).records("tiny"))]))
"""


def test_a_creation_of_the_store_that_is_killed_is_begun_again(tmp_path: Path):
    """MLflow cannot go on with a database in which some tables of a migration are missing."""
    (tmp_path / "runs").mkdir()
    with closing(sqlite3.connect(tmp_path / "runs" / "mlflow.db.partial-killed")) as half, half:
        half.execute("CREATE TABLE guardrails (guardrail_id VARCHAR(36))")
    folder = check(tmp_path / "runs")
    recorder.create(folder, "tiny")
    assert Store(folder).client.get_experiment_by_name("tiny") is not None
    assert not list(folder.root.glob("*.partial*"))


def test_no_store_is_in_place_before_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    folder = check(tmp_path / "runs")
    with monkeypatch.context() as patched:
        patched.setattr(connection.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            recorder.create(folder, "tiny")
    assert not folder.database.exists()
    recorder.create(check(tmp_path / "runs"), "tiny")
    assert Store(folder).client.get_experiment_by_name("tiny") is not None


def test_only_a_store_that_is_being_created_does_not_wait_for_the_disk(tmp_path: Path):
    waits: dict[bool, set[int]] = {True: set(), False: set()}

    def note(link: sqlalchemy.Connection) -> None:
        (_, _, file), *_ = link.exec_driver_sql("PRAGMA database_list")
        waits[connection.PARTIAL in file].add(link.exec_driver_sql("PRAGMA synchronous").scalar_one())

    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", note)
    try:
        recorder.create(check(tmp_path / "runs"), "tiny")
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "commit", note)
    assert waits == {True: {0}, False: {2}}


@pytest.mark.long
def test_eight_processes_open_one_fresh_store_at_once(tmp_path: Path):
    """`test_two_runners_share_the_work` is the quick form."""
    count = 8
    root = str(Path(__file__).parents[3])
    (tmp_path / "script.py").write_text(FRESH)
    processes = [
        subprocess.Popen(
            [sys.executable, tmp_path / "script.py", Path(__file__).parents[1], tmp_path / "runs", str(k)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": root},
        )
        for k in range(count)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * count, answers
    store = Store(check(tmp_path / "runs"))
    assert {record.label for record in store.records("tiny")} == {f"arm{k}" for k in range(count)}
    assert len(store.runs("tiny", "cell")) == count
    assert [run.info.status for run in store.runs("tiny", "parent")] == ["FINISHED"] * count
    assert Outbox(tmp_path / "runs" / "outbox").pending() == {}
