"""Run a graph of tasks on a pool, in order of priority. A failure only stops dependent tasks; its kind decides about retries.

A task is the name of a function and its arguments; a pool (`ablations.execution.launchers`) runs single tasks. The scheduler
knows nothing about cells, stages or MLflow, and the parent process does not import torch.

After one Ctrl-C (or SIGTERM), no new task starts, and running tasks get `PATIENCE` seconds to stop. A second one ends all tasks
immediately.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.execution.launchers.pool import End, Pool, Progress, Task
from ablations.execution.worker import perform
from ablations.failures import KINDS, LONGEST, Failure, Lost

if TYPE_CHECKING:
    from ablations.execution.progress_display import Display

GRACE = 5.0
"""Seconds a busy worker gets to clean up after SIGTERM."""
PATIENCE = 60.0
"""Seconds that running tasks get, after a request to stop, to reach their next step and save a checkpoint."""
POLL = 0.25
"""Maximum seconds between checks of signals, pauses and retries."""
ROOM = 2**20
"""Bytes by which the free space of a full disk must grow before work resumes."""
TRY_AGAIN = 60.0
"""Seconds after which work resumes without it."""


@dataclass
class Scheduler:
    """Runs a task graph once; call `run`."""

    tasks: Sequence[Task]
    """The whole graph. A dependency that is not in the graph counts as finished."""
    pool: Pool
    """Runs the tasks; `run` stops it at the end."""
    logs: Path
    """Folder of logs, one per task. Several runners and retries append to the same log."""
    observer: Display
    """Receives all events, in this process."""
    fail_fast: bool = False
    """Whether the first failure that is not retried stops the run, as Ctrl-C does, unless the task is spare."""
    _running: dict[str, Task] = field(default_factory=dict)
    """Task key -> task, of those that the pool runs."""
    _tries: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(task key, kind of failure) -> number of failures."""
    _not_before: dict[str, float] = field(default_factory=dict)
    """Task key -> earliest time of the retry, monotonic seconds."""
    _full: int = -1
    """Free bytes of the disk when it was found full, while the run waits for space; negative while it does not wait."""
    _try_again: float = math.inf
    """When a run that waits for space tries again although none is seen here: a quota, or another disk, was full."""
    _signals: int = 0
    """Number of signals received (Ctrl-C or SIGTERM)."""
    _stop_deadline: float = math.inf
    """When `PATIENCE` ends after a request to stop, monotonic seconds; infinite before such a request."""

    def run(self) -> None:
        """Run all tasks that can run.

        Raises:
            KeyboardInterrupt: A signal stopped the run; raised after the workers have ended.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        self._waiting = {task.key: task for task in self.tasks}
        assert len(self._waiting) == len(self.tasks), "task keys are unique"
        known = {part.key for task in self.tasks for part in (task, *task.parts)}
        self._missing = {task.key: set(task.needs) & known for task in self.tasks}
        try:
            with self._counting_signals():
                while self._waiting or self._running:
                    self._step()
        finally:
            self.pool.stop(GRACE)
        if self._signals:
            raise KeyboardInterrupt

    def log_path(self, task: Task) -> Path:
        """Return the path of a task's log."""
        return self.logs / f"{task.key}.log"

    def _step(self) -> None:
        if self._signals and math.isinf(self._stop_deadline):
            self._stop("stopping: running stages save a checkpoint; Ctrl-C again ends them at once")
        if self._signals > 1 or time.monotonic() > self._stop_deadline:
            self._running.clear()  # `_stop` emptied `_waiting`, so `run` now leaves its loop and stops the pool
            return
        now = time.monotonic()
        ready = [task for task in self._waiting.values() if not self._missing[task.key]]
        ready.sort(key=lambda task: task.priority)
        startable = [task for task in ready if self._not_before.get(task.key, 0.0) <= now] if self._has_room() else []
        self._submit([task for task in startable if not task.here])
        parent_task = next((task for task in startable if task.here), None)
        if parent_task is not None:
            self._run_here(parent_task)
        elif not self._running and not ready and self._waiting:
            raise ValueError(f"tasks wait for each other: {', '.join(sorted(self._waiting))}")
        self._process_events(0 if parent_task is not None else POLL)

    def _submit(self, ready: Sequence[Task]) -> None:
        for task in ready[: self.pool.capacity - len(self._running)]:
            del self._waiting[task.key]
            self.pool.submit(task, self.log_path(task))
            self._running[task.key] = task
            self.observer.started(task)

    def _run_here(self, task: Task) -> None:
        del self._waiting[task.key]
        log = self.log_path(task)
        self._handle(task, perform(task.function, task.arguments, lambda done, total: None, log.write_text))

    def _release_dependents(self, task: Task) -> None:
        for needs in self._missing.values():
            needs.discard(task.key)

    def _process_events(self, timeout: float) -> None:
        """Wait for events of the pool, at most ``timeout`` seconds, and handle them."""
        if not self._running:
            time.sleep(timeout)
            return
        for key, event in self.pool.events(timeout):
            if isinstance(event, Progress):
                self.observer.progressed(self._running[key], event.done, event.total)
            else:
                self._handle(self._running.pop(key), event)

    def _handle(self, task: Task, end: End) -> None:
        """Handle the end of a task."""
        if isinstance(end, Lost):
            if end.kind == "killed":  # a dead process could not write to its log
                with contextlib.suppress(OSError), self.log_path(task).open("a") as log:
                    log.write(f"{end.reason}\n")
            self._handle_failure(task, end)
            return
        for part, result in zip(task.parts, end.result if task.parts else (), strict=True):
            if isinstance(result, Lost):
                self._missing[part.key] = set()
                self._handle_failure(part, result)
            else:
                self._release_dependents(part)
                self.observer.finished(part, result, end.seconds / len(task.parts))
        if time.monotonic() >= self._try_again:  # what was full has room again
            self._full, self._try_again = -1, math.inf
        self._release_dependents(task)
        self.observer.finished(task, end.result, end.seconds)

    def _handle_failure(self, task: Task, lost: Lost) -> None:
        """Retry the task if the kind of failure allows it; otherwise fail it and its dependents."""
        kind = lost.kind
        failure = Failure(kind, lost.reason, self.log_path(task), task.title)
        self._tries[task.key, kind] += 1
        retry = self._tries[task.key, kind] <= KINDS[kind].retries and not (kind == "oom" and task.after_oom is None)
        if not math.isinf(self._stop_deadline) and KINDS[kind].again:
            self.observer.retried(task, failure)  # the run is stopping; the next run of the command retries it
        elif retry:
            if kind == "oom":
                assert task.after_oom is not None
                task = replace(task, arguments=task.after_oom)
            if kind == "disk":
                self._pause()
            self._waiting[task.key] = task
            doublings = min(self._tries[task.key, kind] - 1, 10)  # some kinds are retried without limit
            pause = min(KINDS[kind].pause * 2**doublings, LONGEST)
            self._not_before[task.key] = time.monotonic() + pause
            self.observer.retried(task, failure)
        else:
            self._fail(task, failure)
            if self.fail_fast and not task.spare and math.isinf(self._stop_deadline):
                self._stop("stopping at the first failure: running stages save a checkpoint")

    def _fail(self, task: Task, failure: Failure) -> None:
        """Fail a task and all tasks that depend on it, directly or indirectly."""
        self.observer.failed(task, failure)
        failure = replace(failure, reason=f"{failure.cause}: {failure.reason}")
        for part in task.parts:
            self.observer.failed(part, failure)
        failed = {member.key for member in (task, *task.parts)}
        while dependents := [waiting for waiting in self._waiting.values() if waiting.needs & failed]:
            for dependent in dependents:
                failed.add(dependent.key)
                del self._waiting[dependent.key]
                self.observer.failed(dependent, failure)

    def _pause(self) -> None:
        free = shutil.disk_usage(self.logs).free
        if self._full < 0:
            self.observer.message(
                f"PAUSED: the disk under {self.logs.parent} is full ({free / 2**20:.1f} MiB free). Free some space, and the "
                "run resumes by itself. Ctrl-C loses nothing either."
            )
        self._full = max(self._full, free)  # a failed build frees its partial files again, which is not new space
        self._try_again = time.monotonic() + TRY_AGAIN

    def _has_room(self) -> bool:
        if self._full >= 0 and shutil.disk_usage(self.logs).free >= self._full + ROOM:
            self._full = -1
            self.observer.message("there is room again: resuming")
        return self._full < 0 or time.monotonic() >= self._try_again

    def _stop(self, message: str) -> None:
        """Start no more tasks, and ask running tasks to stop."""
        self._stop_deadline = time.monotonic() + PATIENCE
        self._waiting.clear()
        self.pool.halt()
        self.observer.message(message)

    @contextlib.contextmanager
    def _counting_signals(self) -> Iterator[None]:
        """Count Ctrl-C and SIGTERM instead of raising, so that short work in the parent is never interrupted halfway."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def count(number: int, frame: object) -> None:
            self._signals += 1

        previous = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
