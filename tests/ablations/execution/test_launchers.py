"""The contract of all launchers, on real processes: a real Ray cluster, and submitit's local executor instead of Slurm."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fakes
import psutil
import pytest
from fixtures import Run

from ablations.execution import launchers
from ablations.execution.launchers.local import LocalPool
from ablations.execution.launchers.pool import Done, Event, Pool, Progress, Task
from ablations.execution.launchers.slurm import SlurmPool
from ablations.failures import Lost
from rrpo import plugins
from rrpo.errors import InputError

HERE = Path(__file__).parents[1]
NUMBERS = itertools.count()
PATIENCE = 90.0
"""Timeout of a test in seconds."""
Start = Callable[..., Pool]


def installed(name: str) -> Any:
    """A test parameter for a launcher, skipped if its package is missing. Ray, whose cluster takes long to start, is long."""
    package = launchers.PACKAGES[name]
    missing = bool(package) and launchers.importlib.util.find_spec(package) is None
    marks = [pytest.mark.skipif(missing, reason=f"{package} is not installed")]
    return pytest.param(name, marks=[*marks, pytest.mark.long] if name == "ray" else marks)


@pytest.fixture(scope="module")
def _cluster() -> Iterator[None]:
    """A Ray cluster with two CPUs, shared by all tests."""
    from ablations.execution.launchers.ray import _connect

    ray, _ = _connect(None, 2)
    yield
    ray.shutdown()


@pytest.fixture(params=[installed(name) for name in launchers.PACKAGES])
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pool]:
    if request.param == "ray":
        request.getfixturevalue("_cluster")
    pool = launchers.start(launchers.Launching(launcher=request.param), 2, tmp_path / "launcher")
    yield pool
    pool.stop(0)


def submit(pool: Pool, log: Path, function: str, *arguments: Any) -> str:
    """Submit a task with a key of its own, and return the key."""
    key = f"task-{next(NUMBERS)}"
    pool.submit(Task(key=key, title=function, function=f"tasks:{function}", arguments=arguments), log)
    return key


def until(pool: Pool, matches: Callable[[str, Event], bool]) -> tuple[str, Event]:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for key, event in pool.events(1.0):
            if matches(key, event):
                return key, event
    raise TimeoutError


def end_of(pool: Pool, key: str) -> Event:
    return until(pool, lambda other, event: other == key and not isinstance(event, Progress))[1]


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + PATIENCE
    while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return path.read_text()


def has_ended(pid: int) -> bool:
    """Return whether a process has ended, waiting briefly if necessary."""
    deadline = time.monotonic() + 20
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
    return True


class TestContract:
    """Contract tests of every launcher."""

    def test_a_task_tells_how_far_it_is_and_what_came_of_it(self, pool: Pool, tmp_path: Path):
        key = submit(pool, tmp_path / "log", "told_when_to_end", str(tmp_path))
        assert until(pool, lambda key, event: isinstance(event, Progress)) == (key, Progress(1, 3))
        (tmp_path / "go").touch()
        event = end_of(pool, key)
        assert isinstance(event, Done)
        assert event.result == int((tmp_path / "pid").read_text()) != os.getpid()
        assert event.seconds > 0
        assert (tmp_path / "log").read_text() == "at the end\n"

    def test_tasks_run_at_the_same_time_with_one_thread_and_no_torch(self, pool: Pool, tmp_path: Path):
        both = [("a", "b"), ("b", "a")]
        keys = {submit(pool, tmp_path / "log", "meet", str(tmp_path), *names) for names in both}
        ends: dict[str, Event] = {}
        while len(ends) < 2:
            ends |= {key: event for key, event in pool.events(PATIENCE) if not isinstance(event, Progress)}
        assert ends.keys() == keys
        assert [event.result for event in ends.values() if isinstance(event, Done)] == [True, True]
        key = submit(pool, tmp_path / "log", "environment")
        assert end_of(pool, key).result == ("1", False)  # type: ignore[union-attr]

    def test_workers_load_the_plugins_of_this_process(self, pool: Pool, tmp_path: Path, no_plugins: Callable[[], None]):
        (tmp_path / "mine.py").write_text("")
        plugins.use([tmp_path / "mine.py"])
        key = submit(pool, tmp_path / "log", "plugin_names")
        assert end_of(pool, key).result == ["mine.py"]  # type: ignore[union-attr]

    def test_an_error_is_told_with_its_kind_and_the_log_has_the_traceback(self, pool: Pool, tmp_path: Path):
        key = submit(pool, tmp_path / "log", "fail")
        assert end_of(pool, key) == Lost("bug", "RuntimeError: planted failure")
        assert 'raise RuntimeError("planted failure")' in (tmp_path / "log").read_text()
        key = submit(pool, tmp_path / "log", "fill", 8)
        assert end_of(pool, key) == Lost("oom", "MemoryError: 8 samples do not fit")

    def test_a_death_is_told_with_its_cause_and_others_go_on(self, pool: Pool, tmp_path: Path):
        for function, why in (("die", "killed by SIGKILL"), ("leave", "exit code 7")):
            event = end_of(pool, submit(pool, tmp_path / "log", function))
            assert isinstance(event, Lost)
            assert event.kind == "killed"
            assert why in event.reason
        assert isinstance(end_of(pool, submit(pool, tmp_path / "log", "environment")), Done)

    def test_whatever_process_is_killed_the_task_has_died(self, pool: Pool, tmp_path: Path):
        """Also the worker's parent: this process for local workers, else a Ray task or a job, with which the worker dies."""
        key = submit(pool, tmp_path / "log", "told_when_to_end", str(tmp_path))
        pid = int(wait_for(tmp_path / "pid"))
        above = psutil.Process(pid).ppid()
        os.kill(pid if above == os.getpid() else above, signal.SIGKILL)
        event = end_of(pool, key)
        assert isinstance(event, Lost)
        assert event.kind == "killed"
        assert has_ended(pid)
        (tmp_path / "go").touch()
        assert isinstance(end_of(pool, submit(pool, tmp_path / "log", "told_when_to_end", str(tmp_path))), Done)

    def test_a_task_that_is_asked_to_stop_saves_a_checkpoint(self, pool: Pool, tmp_path: Path):
        key = submit(pool, tmp_path / "log", "steps", str(tmp_path))
        until(pool, lambda key, event: isinstance(event, Progress))
        pool.halt()
        event = end_of(pool, key)
        assert isinstance(event, Lost)
        assert event.kind == "stopped"
        assert (tmp_path / "checkpoint").exists()

    def test_a_stop_lets_tasks_clean_up(self, pool: Pool, tmp_path: Path):
        submit(pool, tmp_path / "log", "sleep", str(tmp_path))
        pid = int(wait_for(tmp_path / "pid"))
        wait_for_started = time.monotonic() + PATIENCE
        while not (tmp_path / "started").exists() and time.monotonic() < wait_for_started:
            time.sleep(0.02)
        pool.stop(20)
        assert (tmp_path / "cleaned").exists()
        assert has_ended(pid)

    def test_a_log_that_cannot_be_seen_there_fails_the_task_with_the_reason(self, pool: Pool, tmp_path: Path):
        event = end_of(pool, submit(pool, tmp_path / "elsewhere" / "log", "environment"))
        assert isinstance(event, Lost)
        assert event.kind == "bug"
        local = isinstance(pool, LocalPool)
        assert ("No such file" if local else "the runs folder must be shared") in event.reason

    def test_nothing_to_wait_for_is_no_error(self, pool: Pool):
        start = time.monotonic()
        assert pool.events(0.2) == []
        assert time.monotonic() - start >= 0.15


@pytest.mark.long
@pytest.mark.parametrize("name", [installed("ray"), installed("slurm")])
def test_a_grid_gives_the_same_files_as_here(
    runs: Path, run: Run, request: pytest.FixtureRequest, tmp_path: Path, name: str
):
    if name == "ray":
        request.getfixturevalue("_cluster")
    cells = fakes.cells(["diffro", "rrpo"], [1])
    remote, text = run(cells, workers=2, launching=launchers.Launching(launcher=name))
    assert (remote.status, remote.done) == (0, 2), text
    assert "cell 2 of 2 done" in text
    theirs = results(runs)
    assert len(theirs) > 10
    here = tmp_path / "here"
    run(cells, folder=here)
    assert results(here) == theirs


@pytest.mark.usefixtures("_cluster")
@pytest.mark.parametrize("name", [installed("ray")])
def test_a_cluster_without_room_is_refused(name: str):
    with pytest.raises(InputError, match=r"2 CPU\(s\) and 1 GPU\(s\) a task; a node has at most 2 and"):
        launchers.start(launchers.Launching(launcher=name, cpus_per_task=2, gpus_per_task=1), 1, Path())


def results(runs: Path) -> dict[str, bytes]:
    """Return the content of every file of every stage, without times and paths."""
    stages = runs / "stages"
    files = {p.relative_to(stages).as_posix(): p for p in stages.rglob("*") if p.is_file()}
    return {name: p.read_bytes() for name, p in files.items() if p.name not in ("stage.json", "built.txt")}


PARENT = """
import sys
from pathlib import Path
from ablations.execution import launchers
from ablations.execution.launchers.pool import Task

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    pool = launchers.start(launchers.Launching(launcher=sys.argv[2]), 1, folder / "launcher")
    pool.submit(Task(key="a", title="a", function="tasks:sleep", arguments=(str(folder),)), folder / "log")
    while True:
        pool.events(None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker ends when it next tells of its progress")
@pytest.mark.parametrize("name", ["local", pytest.param("ray", marks=pytest.mark.long)])
def test_workers_die_with_the_parent(tmp_path: Path, name: str):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    places = os.environ | {"PYTHONPATH": os.pathsep.join((str(HERE.parent.parent), str(HERE)))}
    with subprocess.Popen([sys.executable, str(script), str(tmp_path), name], env=places) as parent:
        worker = int(wait_for(tmp_path / "pid"))
        parent.kill()
        parent.wait()
    assert has_ended(worker)


def test_sbatch_gets_the_options_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("submitit")
    monkeypatch.setattr(SlurmPool, "_make_executor", lambda pool, folder: None)
    options = launchers.Launching(launcher="slurm", slurm=["partition=gpu", "time=600"], gpus_per_task=0.25)
    pool = SlurmPool(1, tmp_path, launchers.checked(options, "cuda", 4))
    assert pool._parameters == {
        "name": "rrpo",
        "timeout_min": 24 * 60,
        "cpus_per_task": 1,
        "gpus_per_node": 1,
        "slurm_partition": "gpu",
        "slurm_time": 600,
    }
