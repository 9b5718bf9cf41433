"""The scheduler on real processes: order, failures, deaths, interruption."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablations.execution import scheduler
from ablations.execution.launchers.local import LocalPool
from ablations.execution.launchers.pool import Done, End, Event, Task
from ablations.execution.launchers.remote import JobPool
from ablations.execution.scheduler import Scheduler
from ablations.failures import KINDS, Failure, Lost
from rrpo.errors import InputError


@dataclass
class Events:
    """Records the scheduler's events."""

    results: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    progress: list[tuple[str, int, int]] = field(default_factory=list)
    retries: list[tuple[str, str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def started(self, task: Task) -> None:
        pass

    def progressed(self, task: Task, done: int, total: int) -> None:
        self.progress.append((task.key, done, total))

    def finished(self, task: Task, result: Any, seconds: float) -> None:
        self.results[task.key] = result

    def retried(self, task: Task, failure: Failure) -> None:
        self.retries.append((task.key, failure.kind))

    def message(self, text: str) -> None:
        self.words.append(text)

    def failed(self, task: Task, failure: Failure) -> None:
        self.failures[task.key] = failure


def go(
    tasks: Sequence[Task], folder: Path, workers: int = 1, events: Events | None = None, *, fail_fast: bool = False
) -> Events:
    events = events or Events()
    Scheduler(tasks, LocalPool(workers), folder / "logs", events, fail_fast=fail_fast).run()
    return events


def task(key: str, function: str, *arguments: Any, needs: Sequence[str] = (), priority: float = 0) -> Task:
    return Task(
        key=key,
        title=key.upper(),
        function=f"tasks:{function}",
        arguments=arguments,
        needs=frozenset(needs),
        priority=(priority,),
    )


def test_needs_come_first_then_priority(tmp_path: Path):
    file = str(tmp_path / "order")
    graph = [
        task("late", "note", file, "late", priority=3),
        task("first", "note", file, "first", needs=["base"], priority=1),
        task("base", "note", file, "base", priority=2),
    ]
    events = go(graph, tmp_path)
    assert Path(file).read_text().split() == ["base", "first", "late"]
    assert len(set(events.results.values())) == 1, "one worker ran all of them"
    assert ("base", 1, 2) in events.progress
    assert (tmp_path / "logs" / "base.log").read_text() == "noted base\n"


def test_workers_run_at_the_same_time(tmp_path: Path):
    graph = [task("a", "meet", str(tmp_path), "a", "b"), task("b", "meet", str(tmp_path), "b", "a")]
    assert go(graph, tmp_path, workers=2).results == {"a": True, "b": True}


def test_a_worker_has_one_thread_and_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert go([task("a", "environment")], tmp_path).results["a"] == ("1", False)
    assert os.environ["OMP_NUM_THREADS"] == "8"


def test_a_failure_takes_only_what_needs_it(tmp_path: Path):
    file = str(tmp_path / "order")
    graph = [
        task("bad", "fail", priority=0),
        task("child", "note", file, "child", needs=["bad"], priority=1),
        task("grandchild", "note", file, "grandchild", needs=["child", "good"], priority=2),
        task("good", "note", file, "good", priority=3),
    ]
    events = go(graph, tmp_path)
    assert events.results.keys() == {"good"}
    assert events.failures.keys() == {"bad", "child", "grandchild"}
    assert {failure.cause for failure in events.failures.values()} == {"BAD"}
    assert events.failures["bad"].reason == "RuntimeError: planted failure"
    assert "Traceback" in events.failures["grandchild"].log.read_text()


@pytest.mark.parametrize(("function", "why"), [("die", "SIGKILL"), ("leave", "exit code 7")])
def test_a_worker_that_dies_fails_its_task_and_is_replaced(tmp_path: Path, function: str, why: str):
    file = str(tmp_path / "order")
    graph = [task("bad", function), task("good", "note", file, "good", priority=1)]
    events = go(graph, tmp_path)
    assert events.results.keys() == {"good"}
    assert why in events.failures["bad"].reason
    log = events.failures["bad"].log.read_text()
    assert log.count(why) == 4, "the log contains the output of the first attempt and three retries"
    assert events.retries == 3 * [("bad", "killed")]


def test_a_task_for_the_parent_runs_there_and_fails_alone(tmp_path: Path):
    file = str(tmp_path / "order")
    graph = [
        task("base", "note", file, "base"),
        replace(task("mine", "note", file, "mine", needs=["base"]), here=True),
        replace(task("bad", "fail", needs=["base"]), here=True),
        task("after", "note", file, "after", needs=["mine"]),
    ]
    events = go(graph, tmp_path)
    assert events.results["mine"] == os.getpid()
    assert events.results["after"] == events.results["base"] != os.getpid()
    assert "Traceback" in events.failures["bad"].log.read_text()


def test_an_interrupt_ends_workers_and_lets_them_clean_up(tmp_path: Path):
    class Interrupt(Events):
        def progressed(self, task: Task, done: int, total: int) -> None:
            while not (tmp_path / "started").exists():
                pass
            raise KeyboardInterrupt

    graph = [task("a", "sleep", str(tmp_path)), task("b", "note", str(tmp_path / "order"), "b", priority=1)]
    with pytest.raises(KeyboardInterrupt):
        go(graph, tmp_path, workers=2, events=Interrupt())
    assert (tmp_path / "cleaned").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_killed_task_goes_on_where_it_can(tmp_path: Path):
    events = go([task("a", "die_once", str(tmp_path / "died"))], tmp_path)
    assert events.results == {"a": "second try"}
    assert events.retries == [("a", "killed")]
    assert not events.failures


def test_out_of_memory_is_tried_once_more_with_the_smaller_arguments(tmp_path: Path):
    large = replace(task("a", "fill", 8), after_oom=(2,))
    assert go([large], tmp_path).results == {"a": 2}
    hopeless = replace(task("b", "fill", 8), after_oom=(4,))
    events = go([hopeless, task("c", "fill", 8)], tmp_path)
    assert {key: f.kind for key, f in events.failures.items()} == {"b": "oom", "c": "oom"}
    assert events.retries == [("b", "oom")], "without smaller arguments there is no retry"


def test_divergence_and_bugs_are_not_retried(tmp_path: Path):
    events = go([task("a", "diverge"), task("b", "fail")], tmp_path)
    assert {key: f.kind for key, f in events.failures.items()} == {"a": "diverged", "b": "bug"}
    assert not events.retries


def test_what_another_process_works_on_is_asked_again_and_blocks_nothing(tmp_path: Path):
    file = tmp_path / "order"
    graph = [
        task("theirs", "claimed_until", str(file), priority=0),
        task("mine", "note", str(file), "mine", priority=1),
    ]
    events = go(graph, tmp_path)
    assert events.results["theirs"] == "free"
    assert ("theirs", "claimed") in events.retries


def test_a_log_that_another_runner_writes_to_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two runners share a folder: the second retries the first one's task several times, then runs it itself."""
    monkeypatch.setitem(KINDS, "claimed", replace(KINDS["claimed"], pause=0.05))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "work.log").write_text("a former try\n")
    work = task("work", "fail_with_claim", str(tmp_path))

    class Second(Events):
        def retried(self, task: Task, failure: Failure) -> None:
            super().retried(task, failure)
            if len(self.retries) == 3:
                (tmp_path / "go").touch()

    first, second = Events(), Second()
    runner = threading.Thread(target=go, args=([work], tmp_path, 1, first))
    runner.start()
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    go([work], tmp_path, events=second)
    runner.join()
    assert second.retries[:3] == 3 * [("work", "claimed")]
    assert first.failures["work"].kind == second.failures["work"].kind == "bug"
    log = first.failures["work"].log.read_text()
    assert log.startswith("a former try\nat work\n")
    assert log.count("at work\n") == log.count("planted failure\n") == log.count(", process ") == 2, (
        "one from each runner"
    )
    assert "ClaimedError" not in log


def test_fail_fast_starts_nothing_more_and_asks_the_rest_to_stop(tmp_path: Path):
    file = str(tmp_path / "order")
    graph = [task("steps", "steps", str(tmp_path)), task("bad", "fail_after", str(tmp_path / "started"), priority=1)]
    graph.append(task("later", "note", file, "later", priority=2))
    events = go(graph, tmp_path, workers=2, fail_fast=True)
    assert events.failures.keys() == {"bad"}
    assert events.retries == [("steps", "stopped")]
    assert (tmp_path / "checkpoint").exists()
    assert not Path(file).exists()


def test_fail_fast_goes_on_after_what_only_optional_results_need(tmp_path: Path):
    file = tmp_path / "order"
    graph = [
        replace(task("bad", "fail"), spare=True),
        task("later", "note", str(file), "later", priority=1),
    ]
    events = go(graph, tmp_path, fail_fast=True)
    assert (events.failures.keys(), events.results.keys()) == ({"bad"}, {"later"})


def test_fail_fast_is_no_interrupt_where_what_runs_outlasts_the_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scheduler, "PATIENCE", 0.1)
    deaf = task("deaf", "sleep", str(tmp_path))
    events = go([deaf, task("bad", "fail_after", str(tmp_path / "started"))], tmp_path, workers=2, fail_fast=True)
    assert events.failures.keys() == {"bad"}
    assert (tmp_path / "cleaned").exists(), "ended by SIGTERM"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_lets_running_tasks_save_a_checkpoint(tmp_path: Path, number: int):
    class Signal(Events):
        def progressed(self, task: Task, done: int, total: int) -> None:
            if not self.progress:
                os.kill(os.getpid(), number)
            super().progressed(task, done, total)

    events = Signal()
    graph = [task("steps", "steps", str(tmp_path)), task("b", "note", str(tmp_path / "order"), "b", priority=1)]
    with pytest.raises(KeyboardInterrupt):
        go(graph, tmp_path, events=events)
    assert events.retries == [("steps", "stopped")]
    assert (tmp_path / "checkpoint").exists()
    assert not (tmp_path / "order").exists()
    assert "Ctrl-C again" in events.words[0]


def test_two_signals_end_it_at_once(tmp_path: Path):
    class Signals(Events):
        def progressed(self, task: Task, done: int, total: int) -> None:
            os.kill(os.getpid(), signal.SIGINT)

        def message(self, text: str) -> None:
            super().message(text)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        go([task("deaf", "sleep_after_report", str(tmp_path))], tmp_path, events=Signals())
    assert not (tmp_path / "slept").exists(), "it did not wait for the task's sixty seconds"
    assert (tmp_path / "cleaned").exists(), "SIGTERM unwinds a task that ignores the request to stop"


def test_a_full_disk_pauses_the_run_until_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    free = [10 * 2**20]
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=free[0]))

    class Clearing(Events):
        turns = 0

        def retried(self, task: Task, failure: Failure) -> None:
            super().retried(task, failure)
            threading.Timer(1.0, self.clear).start()

        def clear(self) -> None:
            (tmp_path / "room").touch()
            free[0] += 2**21

    events = go([task("a", "write", str(tmp_path / "room"))], tmp_path, events=Clearing())
    assert events.results == {"a": "written"}
    assert events.retries == [("a", "disk")], "it was not retried before there was free space"
    assert [text.split(":")[0] for text in events.words] == ["PAUSED", "there is room again"]


def test_a_disk_that_is_full_elsewhere_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A quota, or a full disk for temporary files, leaves the free space that is seen here unchanged."""
    monkeypatch.setattr(scheduler, "TRY_AGAIN", 0.5)
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real)

    class Clearing(Events):
        def retried(self, task: Task, failure: Failure) -> None:
            super().retried(task, failure)
            if len(self.retries) == 2:
                (tmp_path / "room").touch()

    events = go([task("a", "write", str(tmp_path / "room"))], tmp_path, events=Clearing())
    assert events.results == {"a": "written"}
    assert events.retries == 2 * [("a", "disk")]
    assert [text.split(":")[0] for text in events.words] == ["PAUSED"], "said once"


def test_a_cycle_is_an_error_not_a_hang(tmp_path: Path):
    with pytest.raises(ValueError, match="wait for each other: a, b"):
        go([task("a", "fail", needs=["b"]), task("b", "fail", needs=["a"])], tmp_path)


def parts(folder: Path, *outcomes: str) -> list[Task]:
    """Return a task whose parts are named by their results, and one dependent task per part."""
    parts = tuple(task(f"part {kind}", "note", str(folder / "alone"), kind) for kind in outcomes)
    parent = replace(task("whole", "several", str(folder), list(outcomes)), parts=parts)
    return [
        parent,
        *(task(f"after {kind}", "note", str(folder / "after"), kind, needs=[f"part {kind}"]) for kind in outcomes),
    ]


def test_parts_of_a_task_end_each_in_its_own_way(tmp_path: Path):
    """One part is done, one fails with its dependents, one is retried alone."""
    events = go(parts(tmp_path, "ok", "diverged", "killed"), tmp_path)
    assert events.results.keys() == {"whole", "part ok", "part killed", "after ok", "after killed"}
    assert events.failures.keys() == {"part diverged", "after diverged"}
    assert events.failures["after diverged"].cause == events.failures["part diverged"].cause == "PART DIVERGED"
    assert events.failures["part diverged"].reason == "planted diverged"
    assert events.retries == [("part killed", "killed")]
    assert (tmp_path / "alone").read_text().split() == ["killed"]
    assert sorted((tmp_path / "after").read_text().split()) == ["killed", "ok"]


def test_a_task_of_parts_that_dies_is_tried_again_as_a_whole(tmp_path: Path):
    events = go(parts(tmp_path, "dies", "ok"), tmp_path)
    assert not events.failures
    assert events.retries == [("whole", "killed")]
    assert not (tmp_path / "alone").exists()


def test_a_task_of_parts_that_is_lost_takes_them_and_all_that_needs_them(tmp_path: Path):
    parent, *dependents = parts(tmp_path, "ok", "killed")
    events = go([replace(parent, function="tasks:fail", arguments=()), *dependents], tmp_path)
    assert events.failures.keys() == {"whole", "part ok", "part killed", "after ok", "after killed"}
    assert {failure.cause for failure in events.failures.values()} == {"WHOLE"}


class Cluster(JobPool):
    """A cluster that refuses some submissions, by number, and ends the other jobs at once."""

    def __init__(self, folder: Path, refused: Collection[int]) -> None:
        super().__init__(1, folder)
        self.refused, self.numbers = refused, itertools.count()

    def start(self, *arguments: Any) -> Future[End]:
        if next(self.numbers) in self.refused:
            raise OSError("too many\n jobs")
        job: Future[End] = Future()
        job.set_result(Done("result", 1.0))
        return job


def test_a_job_that_the_cluster_refuses_is_submitted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(KINDS, "refused", replace(KINDS["refused"], pause=0.0))
    refusing, events = Cluster(tmp_path, refused=[1]), Events()
    for key in ("a", "b"):
        refusing.submit(task(key, "note"), tmp_path / "log")
    assert refusing.events(0) == [
        ("a", Done("result", 1.0)),
        ("b", Lost("refused", "no job could be started: too many jobs")),
    ]
    Scheduler([task("a", "note"), task("b", "note")], Cluster(tmp_path, refused=[1, 2]), tmp_path, events).run()
    assert events.results == {"a": "result", "b": "result"}
    assert events.retries == 2 * [("b", "refused")]


def test_a_cluster_that_refuses_the_first_job_is_wrong_input(tmp_path: Path):
    with pytest.raises(InputError, match=r"the first job was refused\n  got: too many jobs"):
        Scheduler([task("a", "note")], Cluster(tmp_path, refused=[0]), tmp_path, Events()).run()


def test_what_is_claimed_is_asked_for_less_and_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On a simulated clock."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    class Elsewhere(LocalPool):
        def __init__(self) -> None:
            super().__init__(1)
            self.times: list[float] = []

        def submit(self, task: Task, log: Path) -> None:
            self.times.append(now[0])

        def events(self, timeout: float | None) -> list[tuple[str, Event]]:
            return [("a", Lost("claimed", "by another") if len(self.times) < 1100 else Done(None, 1.0))]

    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    pool = Elsewhere()
    Scheduler([task("a", "note")], pool, tmp_path, Events()).run()
    pauses = [later - earlier for earlier, later in itertools.pairwise(pool.times)]
    assert pauses[:7] == [1, 2, 4, 8, 16, 32, 60]
    assert set(pauses[7:]) == {60}
