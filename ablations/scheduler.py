"""Run a graph of tasks on a pool: ready ones by priority, each failure kept to the tasks that need it.

A task is a function by name with its arguments; a pool (`ablations.launchers`) runs single ones. One whose process dies fails
alone. Knows nothing of cells, stages or MLflow. The parent imports no torch.
"""

from __future__ import annotations

import contextlib
import importlib
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ablations.launchers.pool import Died, Done, Failed, Pool, Progress, Task

GRACE = 5.0
"""Seconds a busy worker gets to clean up after SIGTERM."""


@dataclass(frozen=True)
class Failure:
    """Why a task has no result."""

    message: str
    """One line."""
    log: Path
    """Log of the task that failed."""
    cause: str
    """Title of the task that failed; another's, when this one only needed it."""


class Observer(Protocol):
    """Told of everything that happens, in the parent process."""

    def started(self, slot: int, task: Task) -> None:
        """A worker took a task."""

    def progressed(self, slot: int, task: Task, done: int, total: int) -> None:
        """A task says how far it is."""

    def finished(self, slot: int | None, task: Task, result: Any, seconds: float) -> None:
        """A task has its result; no slot when it ran in the parent."""

    def failed(self, slot: int | None, task: Task, failure: Failure) -> None:
        """A task failed, or will never run, since one that it needs failed (then the failure's cause is another)."""


@dataclass
class Scheduler:
    """Runs tasks once; use by `run`."""

    tasks: Sequence[Task]
    """The whole graph; a need that is no task of it counts as met."""
    pool: Pool
    """Runs the tasks; stopped in the end."""
    logs: Path
    """Folder of logs, one a task."""
    observer: Observer
    """Told of everything."""
    _running: dict[int, Task] = field(default_factory=dict)
    """Slot -> its task."""

    def run(self) -> None:
        """Run everything that can be run. On KeyboardInterrupt the workers are ended before it goes on up."""
        self.logs.mkdir(parents=True, exist_ok=True)
        waiting = {task.key: task for task in self.tasks}
        assert len(waiting) == len(self.tasks), "task keys are unique"
        missing = {task.key: set(task.needs) & waiting.keys() for task in self.tasks}
        try:
            while waiting or self._running:
                ready = sorted((t for t in waiting.values() if not missing[t.key]), key=lambda t: t.priority)
                self._assign([t for t in ready if not t.here], waiting)
                mine = next((t for t in ready if t.here), None)
                if mine is not None:
                    self._run_here(mine, waiting, missing)
                elif not self._running:
                    raise ValueError(f"tasks wait for each other: {', '.join(sorted(waiting))}")
                self._hear(waiting, missing, timeout=None if mine is None else 0)
        finally:
            self.pool.stop(GRACE)

    def log_path(self, task: Task) -> Path:
        """Where a task's output goes."""
        return self.logs / f"{task.key}.log"

    def _assign(self, ready: Sequence[Task], waiting: dict[str, Task]) -> None:
        for task in ready[: self.pool.capacity - len(self._running)]:
            del waiting[task.key]
            self.log_path(task).unlink(missing_ok=True)
            slot = self.pool.submit(task, self.log_path(task))
            self._running[slot] = task
            self.observer.started(slot, task)

    def _run_here(self, task: Task, waiting: dict[str, Task], missing: Mapping[str, set[str]]) -> None:
        del waiting[task.key]
        start = time.monotonic()
        module, name = task.function.split(":")
        try:
            with _interrupt_later():
                result = getattr(importlib.import_module(module), name)(*task.arguments, lambda done, total: None)
        except Exception as error:
            self.log_path(task).write_text(traceback.format_exc())
            self._fail(None, task, f"{type(error).__name__}: {error}", waiting)
            return
        self._met(task, missing)
        self.observer.finished(None, task, result, time.monotonic() - start)

    def _met(self, task: Task, missing: Mapping[str, set[str]]) -> None:
        for needs in missing.values():
            needs.discard(task.key)

    def _hear(self, waiting: dict[str, Task], missing: Mapping[str, set[str]], timeout: float | None) -> None:
        """Wait until some task says something or its process dies, and act on it."""
        for event in self.pool.events(timeout):
            if isinstance(event, Progress):
                self.observer.progressed(event.slot, self._running[event.slot], event.done, event.total)
                continue
            task = self._running.pop(event.slot)
            match event:
                case Done(slot, result, seconds):
                    self._met(task, missing)
                    self.observer.finished(slot, task, result, seconds)
                case Failed(slot, message):
                    self._fail(slot, task, message, waiting)
                case Died(slot, reason):
                    message = f"worker process died: {reason}"
                    with self.log_path(task).open("a") as log:
                        log.write(f"{message}\n")
                    self._fail(slot, task, message, waiting)

    def _fail(self, slot: int | None, task: Task, message: str, waiting: dict[str, Task]) -> None:
        """Fail a task and all that need it, directly or not."""
        failure = Failure(message, self.log_path(task), task.title)
        self.observer.failed(slot, task, failure)
        lost = {task.key}
        while doomed := [t for t in waiting.values() if t.needs & lost]:
            for other in doomed:
                lost.add(other.key)
                del waiting[other.key]
                self.observer.failed(None, other, failure)


@contextlib.contextmanager
def _interrupt_later() -> Iterator[None]:
    """Hold Ctrl-C back until a short piece of work is whole."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            raise KeyboardInterrupt
