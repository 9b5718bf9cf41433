"""The scheduler on real processes: order, failures, deaths, interruption."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ablations.launchers.local import LocalPool
from ablations.scheduler import Failure, Scheduler, Task


@dataclass
class Events:
    """Remembers what the scheduler told."""

    results: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    progress: list[tuple[str, int, int]] = field(default_factory=list)

    def started(self, slot: int, task: Task) -> None:
        pass

    def progressed(self, slot: int, task: Task, done: int, total: int) -> None:
        self.progress.append((task.key, done, total))

    def finished(self, slot: int | None, task: Task, result: Any, seconds: float) -> None:
        self.results[task.key] = result

    def failed(self, slot: int | None, task: Task, failure: Failure) -> None:
        self.failures[task.key] = failure


def go(tasks: Sequence[Task], folder: Path, workers: int = 1, events: Events | None = None) -> Events:
    events = events or Events()
    Scheduler(tasks, LocalPool(workers), folder / "logs", events).run()
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
    assert len(set(events.results.values())) == 1, "one warm worker ran them all"
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
    assert events.failures["bad"].message == "RuntimeError: planted failure"
    assert "Traceback" in events.failures["grandchild"].log.read_text()


@pytest.mark.parametrize(("function", "why"), [("die", "SIGKILL"), ("leave", "exit code 7")])
def test_a_worker_that_dies_fails_its_task_and_is_replaced(tmp_path: Path, function: str, why: str):
    file = str(tmp_path / "order")
    graph = [task("bad", function), task("good", "note", file, "good", priority=1)]
    events = go(graph, tmp_path)
    assert events.results.keys() == {"good"}
    assert why in events.failures["bad"].message
    assert why in events.failures["bad"].log.read_text()


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
        def progressed(self, slot: int, task: Task, done: int, total: int) -> None:
            while not (tmp_path / "started").exists():
                pass
            raise KeyboardInterrupt

    graph = [task("a", "sleep", str(tmp_path)), task("b", "note", str(tmp_path / "order"), "b", priority=1)]
    with pytest.raises(KeyboardInterrupt):
        go(graph, tmp_path, workers=2, events=Interrupt())
    assert (tmp_path / "cleaned").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_cycle_is_an_error_not_a_hang(tmp_path: Path):
    with pytest.raises(ValueError, match="wait for each other: a, b"):
        go([task("a", "fail", needs=["b"]), task("b", "fail", needs=["a"])], tmp_path)
