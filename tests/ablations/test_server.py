"""A real MLflow server on loopback instead of the database, killed and restarted."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import fakes
import pytest
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from requests.adapters import HTTPAdapter
from typer.testing import CliRunner

from ablations.execution.jobs import add_optional, record_cell
from ablations.grids import GRIDS, Grid
from ablations.run import app
from ablations.tracking import connection, recorder, replay
from ablations.tracking.connection import UnavailableError
from ablations.tracking.outbox import Entry
from ablations.tracking.reader import Store
from ablations.tracking.recorder import Tracker
from ablations.tracking.records import Record
from ablations.tracking.replay import Replay
from ablations.tracking.run_files import locate
from ablations.tracking.runs_folder import check
from rrpo.errors import InputError
from rrpo.experiment.cell import Cell
from rrpo.pipeline.stages import Context, materialise


@dataclass
class Server:
    """One `mlflow server` process."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        log = (self.folder / "log.txt").open("ab")
        self.process = subprocess.Popen(
            command, env=os.environ | settings, stdout=log, stderr=log, start_new_session=True
        )
        deadline = time.monotonic() + 90
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log.txt").read_text()
            assert time.monotonic() < deadline, (self.folder / "log.txt").read_text()
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.address}/health", timeout=2).status == 200
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"), free_port())
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def server(_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    if _server.process is None:
        _server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", _server.address)
    return _server


@pytest.fixture
def grid(request: pytest.FixtureRequest) -> str:
    """A separate experiment for one test, because the server is shared."""
    return request.node.name.replace("test_", "")[:30]


def record(tracker: Tracker, cell: Cell) -> Record:
    for stage in cell.stages.values():
        materialise(stage, tracker.folder.root, Context())
    return record_cell(cell, tracker.folder.root, tracker, lambda done, total: None)


def test_a_command_records_on_the_server_and_every_host_reads_it(
    server: Server, grid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cells = fakes.cells(["sft", "rrpo"], [1])
    monkeypatch.setitem(GRIDS._items, grid, Grid(cells=lambda profile, seeds: cells, profile="smoke", seeds=1))
    runs = tmp_path / "runs"
    command = ["--grid", grid, "--workers", "1", "--runs-dir", str(runs)]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert f"Open it: {server.address}" in result.output
    assert not (runs / "mlflow.db").exists()
    store = Store(check(runs))
    assert {record.label: record.scalars["rm_ece"] for record in store.records(grid)} == {
        cell.label: pytest.approx(0.1 - (sum(cell.label.encode()) % 7) / 160) for cell in cells
    }
    host = tmp_path / "other"  # another host: an empty folder
    recorder.create(check(host), grid)
    far = Store(check(host)).records(grid)
    assert {record.cell_hash for record in far} == {cell.hash for cell in cells}
    assert not (host / "cache").exists(), "nothing is fetched before it is read"
    by_hash = {record.cell_hash: record for record in store.records(grid)}
    for remote in far:
        assert remote.points.equals(by_hash[remote.cell_hash].points)
        assert remote.folder.is_relative_to(host / "cache")
        assert (remote.folder / "audio" / "00_angry.wav").stat().st_size > 1000
        assert (remote.folder / "audio" / "00_angry.wav").read_bytes() == (
            by_hash[remote.cell_hash].folder / "audio" / "00_angry.wav"
        ).read_bytes()
    moved = host.rename(tmp_path / "moved")
    assert all(r.folder.is_relative_to(moved / "cache") for r in Store(check(moved)).records(grid))

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(InputError, match="recorded on an MLflow server") as caught:
        check(runs)
    assert server.address in str(caught.value)


def test_two_folders_that_complete_a_cell_at_once_leave_one(
    server: Server, grid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (cell,) = fakes.cells(["rrpo"], [1])
    real, queried = Replay._runs, set()

    def blind_at_first(self: Replay, entry: Entry) -> Sequence[Any]:
        """Neither sees the other's record before writing its own."""
        first = id(self) not in queried
        queried.add(id(self))
        return [] if first else real(self, entry)

    monkeypatch.setattr(Replay, "_runs", blind_at_first)
    recorded = []
    for name in ("one", "two"):
        folder = check(tmp_path / name)
        recorder.create(folder, grid)
        recorded.append(record(Tracker(folder, grid, {}, {}), cell))
    store = Store(check(tmp_path / "two"))
    runs = store.runs(grid, "cell")
    assert [run.info.run_id for run in runs] == [recorded[0].run_id] == [recorded[1].run_id]
    assert len(store.records(grid)) == 1
    assert len(recorded[1].points) == 4


@pytest.mark.long
def test_a_server_that_is_killed_and_started_again_misses_and_doubles_nothing(
    server: Server, grid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(replay, "PAUSE", 0.0)
    cells = fakes.cells([f"arm{k}" for k in range(9)], [1])
    folder = check(tmp_path / "runs")
    recorder.create(folder, grid)
    tracker = Tracker(folder, grid, {}, {}).start_invocation(cells, {})
    for cell in cells[:3]:
        record(tracker, cell)
    # the server dies while a record is written: after its run was created, before its artifacts
    real = HttpArtifactRepository.log_artifacts

    def cut(self, *args, **kwargs):
        server.kill()
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(HttpArtifactRepository, "log_artifacts", cut)
        half = record(tracker, cells[3])
    assert len(half.points) == 4
    for cell in cells[4:6]:
        record(tracker, cell)
    assert "3 records wait" in tracker.waiting()
    with pytest.raises(UnavailableError, match=str(server.port)):
        Store(folder).states(grid)
    server.start()
    for cell in cells[6:]:
        record(tracker, cell)
    tracker.end_invocation("FINISHED")
    assert tracker.waiting() == ""
    store = Store(folder)
    assert {record.cell_hash for record in store.records(grid)} == {cell.hash for cell in cells}
    runs = store.runs(grid, "cell")
    assert len(runs) == len(cells)
    assert {run.info.status for run in runs} == {"FINISHED"}
    shutil.rmtree(folder.cache)
    for recorded in store.records(grid):
        assert len(recorded.points) == 4
        history = store.client.get_metric_history(recorded.run_id, "train/kl_token")
        assert [point.step for point in history] == list(range(1, 21))


def test_results_that_another_folder_adds_are_fetched(server: Server, grid: str, tmp_path: Path):
    """The first folder has its own copy of the run, which the second one completes with the results of a listener."""
    (plain,), (heard,) = fakes.cells(["rrpo"], [1]), fakes.cells(["rrpo"], [1], listener="voice")
    first, second = (check(tmp_path / name) for name in ("first", "second"))
    for folder, cell in ((first, plain), (second, heard)):
        recorder.create(folder, grid)
        tracker = Tracker(folder, grid, {}, {})
        for stage in [*cell.stages.values(), *cell.optional.values()]:
            materialise(stage, folder.root, Context())
        record_cell(cell, folder.root, tracker, lambda done, total: None)
        if folder is first:
            (before,) = Store(first).records(grid)
            assert not (before.folder / "voice" / "stage.json").exists()
            continue
        for role in cell.optional:
            add_optional(cell, folder.root, role, tracker, lambda done, total: None)
    for folder in (first, second):
        (after,) = Store(folder).records(grid)
        assert after.optional == {"voice"}
        assert (after.folder / "voice" / "stage.json").is_file()


def test_a_dead_server_is_asked_once_with_a_short_wait_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection.trouble, "__defaults__", (0.5,))
    asked: list[tuple[int, float]] = []
    real = HTTPAdapter.send

    def send(adapter: HTTPAdapter, *arguments: Any, **options: Any) -> Any:
        asked.append((adapter.max_retries.total, options["timeout"]))
        return real(adapter, *arguments, **options)

    monkeypatch.setattr(HTTPAdapter, "send", send)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # accepts connections and never answers
        for address in (f"http://127.0.0.1:{silent.getsockname()[1]}", "http://user:secret@127.0.0.1:9"):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
            folder = check(tmp_path / "runs")
            with pytest.raises(UnavailableError, match="does not answer") as caught:
                recorder.create(folder, "tiny")
            assert "secret" not in str(caught.value)
            assert not folder.exists
    assert asked == [(0, 0.5)] * 2, "no retry, and at most half a second each"


@pytest.mark.parametrize(
    ("status", "why"), [(404, "answers 404"), (401, "answers 401"), (200, "answers, but not as MLflow does")]
)
def test_a_server_that_is_not_mlflow_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, why: str):
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as http_server:
        Thread(target=http_server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{http_server.server_port}")
        folder = check(tmp_path / "runs")
        with pytest.raises(UnavailableError, match=why):
            recorder.create(folder, "tiny")
        assert not folder.exists
        http_server.shutdown()


@pytest.mark.parametrize("address", ["./mlruns", "postgresql://me:secret@host/db", "http://", "http://[", "ftp://a"])
def test_a_tracking_uri_that_is_no_server_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(InputError, match="is not the address of an MLflow server") as caught:
        check(tmp_path / "runs")
    assert "secret" not in str(caught.value)


def test_artifacts_that_cannot_be_fetched_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    folder = check(tmp_path / "runs")
    with pytest.raises(UnavailableError):
        locate(
            folder,
            SimpleNamespace(
                info=SimpleNamespace(run_id="0" * 32, artifact_uri="mlflow-artifacts:/1/0/artifacts"),
                data=SimpleNamespace(tags={}),
            ),
        )
    assert list(folder.cache.iterdir()) == []
