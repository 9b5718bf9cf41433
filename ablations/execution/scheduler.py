"""Run a graph of tasks on a pool by priority; a failure stops only what depends on it, and its kind decides on retries.

A task is a function by name with its arguments; a pool (`ablations.execution.launchers`) runs single ones. Knows nothing of
cells, stages or MLflow. The parent imports no torch.

Ctrl-C (or SIGTERM) once: nothing new starts, running tasks are asked to stop and get `PATIENCE`; twice: all is ended at once.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import shutil
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ablations.execution.failures import KINDS, kind_of
from ablations.execution.launchers.pool import Died, Done, Failed, Fault, Pool, Progress, Task

GRACE = 5.0
"""Seconds a busy worker gets to clean up after SIGTERM."""
PATIENCE = 60.0
"""Seconds that tasks asked to stop get to reach their next step and save a checkpoint."""
TURN = 0.25
"""Most seconds between two looks at signals, pauses and retries."""
ROOM = 2**20
"""Bytes by which a full disk's free space must grow before the work goes on."""


@dataclass(frozen=True)
class Failure:
    """Why a task has no result, or has to be tried again."""

    message: str
    """One line."""
    log: Path
    """Log of the task that failed."""
    cause: str
    """Title of the task that failed; another's, when this one only needed it."""
    kind: str
    """A key of `ablations.execution.failures.KINDS`."""


class Observer(Protocol):
    """Told of everything that happens, in the parent process."""

    def started(self, slot: int, task: Task) -> None:
        """A worker took a task."""

    def progressed(self, slot: int, task: Task, done: int, total: int) -> None:
        """A task says how far it is."""

    def finished(self, slot: int | None, task: Task, result: Any, seconds: float) -> None:
        """A task has its result; no slot when it ran in the parent."""

    def retried(self, slot: int | None, task: Task, failure: Failure) -> None:
        """A task failed and will be tried again, or was asked to stop and did."""

    def failed(self, slot: int | None, task: Task, failure: Failure) -> None:
        """A task failed, or will never run, since one that it needs failed (then the failure's cause is another)."""

    def said(self, text: str) -> None:
        """Something that concerns no single task: a pause, a stop."""


@dataclass
class Scheduler:
    """Runs tasks once; use by `run`."""

    tasks: Sequence[Task]
    """The whole graph; a need that is no task of it counts as met."""
    pool: Pool
    """Runs the tasks; stopped in the end."""
    logs: Path
    """Folder of logs, one a task; several runners and tries write to the end of one."""
    observer: Observer
    """Told of everything."""
    fail_fast: bool = False
    """Whether the first failure that is not retried stops the rest, as Ctrl-C does."""
    _running: dict[int, Task] = field(default_factory=dict)
    """Slot -> its task."""
    _tries: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(task's key, kind of failure) -> how often."""
    _due: dict[str, float] = field(default_factory=dict)
    """Task's key -> not to be started before, monotonic seconds."""
    _full: int = -1
    """Free bytes of the full disk that the run waits for; negative: it does not."""
    _signals: int = 0
    """Times that Ctrl-C was heard."""
    _deadline: float = math.inf
    """When a stop's patience ends, monotonic seconds; infinite: nobody asked to stop."""

    def run(self) -> None:
        """Run everything that can be run.

        Raises KeyboardInterrupt when a signal stopped it, after the workers have ended.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        self._waiting = {task.key: task for task in self.tasks}
        assert len(self._waiting) == len(self.tasks), "task keys are unique"
        known = {one.key for task in self.tasks for one in (task, *task.parts)}
        self._missing = {task.key: set(task.needs) & known for task in self.tasks}
        try:
            with self._listening():
                while self._waiting or self._running:
                    self._turn()
        finally:
            self.pool.stop(GRACE)
        if self._signals:
            raise KeyboardInterrupt

    def log_path(self, task: Task) -> Path:
        """Where a task's output goes."""
        return self.logs / f"{task.key}.log"

    def _turn(self) -> None:
        if self._signals and math.isinf(self._deadline):
            self._stop("stopping: running stages save a checkpoint; Ctrl-C again ends them at once")
        if self._signals > 1 or time.monotonic() > self._deadline:
            self._running.clear()  # nothing waits either: the pool's stop ends them
            return
        now = time.monotonic()
        ready = [t for t in self._waiting.values() if not self._missing[t.key]]
        ready.sort(key=lambda t: t.priority)
        startable = [t for t in ready if self._due.get(t.key, 0.0) <= now] if self._has_room() else []
        self._assign([t for t in startable if not t.here])
        mine = next((t for t in startable if t.here), None)
        if mine is not None:
            self._run_here(mine)
        elif not self._running and not ready and self._waiting:
            raise ValueError(f"tasks wait for each other: {', '.join(sorted(self._waiting))}")
        self._hear(0 if mine is not None else TURN)

    def _assign(self, ready: Sequence[Task]) -> None:
        for task in ready[: self.pool.capacity - len(self._running)]:
            del self._waiting[task.key]
            slot = self.pool.submit(task, self.log_path(task))
            self._running[slot] = task
            self.observer.started(slot, task)

    def _run_here(self, task: Task) -> None:
        del self._waiting[task.key]
        start = time.monotonic()
        module, name = task.function.split(":")
        try:
            result = getattr(importlib.import_module(module), name)(*task.arguments, lambda done, total: None)
        except Exception as error:
            with contextlib.suppress(OSError):
                self.log_path(task).write_text(traceback.format_exc())
            self._failed(None, task, f"{type(error).__name__}: {error}", kind_of(error))
            return
        self._met(task)
        self.observer.finished(None, task, result, time.monotonic() - start)

    def _met(self, task: Task) -> None:
        for needs in self._missing.values():
            needs.discard(task.key)

    def _hear(self, timeout: float) -> None:
        """Wait until some task says something or its process dies, and act on it."""
        if not self._running:
            time.sleep(timeout)
            return
        for event in self.pool.events(timeout):
            if isinstance(event, Progress):
                self.observer.progressed(event.slot, self._running[event.slot], event.done, event.total)
                continue
            task = self._running.pop(event.slot)
            match event:
                case Done(slot, result, seconds):
                    self._part(task, result if task.parts else (), seconds)
                    self._met(task)
                    self.observer.finished(slot, task, result, seconds)
                case Failed(slot, message, kind):
                    self._failed(slot, task, message, kind)
                case Died(slot, reason):
                    message = f"worker process died: {reason}"
                    with contextlib.suppress(OSError), self.log_path(task).open("a") as log:
                        log.write(f"{message}\n")
                    self._failed(slot, task, message, "killed")

    def _part(self, task: Task, results: Sequence[Any], seconds: float) -> None:
        """Takes in what a finished task's parts came to."""
        for part, result in zip(task.parts, results, strict=True):
            if isinstance(result, Fault):
                self._missing[part.key] = set()
                self._failed(None, part, result.message, result.kind)
            else:
                self._met(part)
                self.observer.finished(None, part, result, seconds / len(task.parts))

    def _failed(self, slot: int | None, task: Task, message: str, kind: str) -> None:
        """Try again if the kind of failure allows it, and lose the task if not."""
        failure = Failure(message, self.log_path(task), task.title, kind)
        self._tries[task.key, kind] += 1
        again = self._tries[task.key, kind] <= KINDS[kind].retries and not (kind == "oom" and task.after_oom is None)
        if not math.isinf(self._deadline) and KINDS[kind].again:
            self.observer.retried(slot, task, failure)  # by the next start of the command
        elif again:
            if kind == "oom":
                assert task.after_oom is not None
                task = replace(task, arguments=task.after_oom)
            if kind == "disk":
                self._pause()
            self._waiting[task.key] = task
            self._due[task.key] = time.monotonic() + KINDS[kind].pause
            self.observer.retried(slot, task, failure)
        else:
            self._lose(slot, task, failure)
            if self.fail_fast and math.isinf(self._deadline):
                self._stop("stopping at the first failure: running stages save a checkpoint")

    def _lose(self, slot: int | None, task: Task, failure: Failure) -> None:
        """Fail a task and all that need it, directly or not."""
        self.observer.failed(slot, task, failure)
        for part in task.parts:
            self.observer.failed(None, part, failure)
        lost = {one.key for one in (task, *task.parts)}
        while doomed := [t for t in self._waiting.values() if t.needs & lost]:
            for other in doomed:
                lost.add(other.key)
                del self._waiting[other.key]
                self.observer.failed(None, other, failure)

    def _pause(self) -> None:
        free = shutil.disk_usage(self.logs).free
        if self._full < 0:
            self.observer.said(
                f"PAUSED: the disk under {self.logs.parent} is full ({free / 2**20:.1f} MiB free). Free some space and the "
                "run goes on by itself; nothing is lost by Ctrl-C either."
            )
        self._full = max(self._full, free)  # what failed builds give back is no new room

    def _has_room(self) -> bool:
        if self._full >= 0 and shutil.disk_usage(self.logs).free >= self._full + ROOM:
            self._full = -1
            self.observer.said("there is room again: going on")
        return self._full < 0

    def _stop(self, why: str) -> None:
        """Start nothing more, and ask what runs to stop."""
        self._deadline = time.monotonic() + PATIENCE
        self._waiting.clear()
        self.pool.halt()
        self.observer.said(why)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Count Ctrl-C and SIGTERM instead of breaking off: short work in the parent is always whole."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def count(number: int, frame: object) -> None:
            self._signals += 1

        before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
