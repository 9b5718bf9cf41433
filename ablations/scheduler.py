"""Run a graph of tasks on worker processes: ready ones by priority, each failure kept to the tasks that need it.

A task is a function by name with its arguments. Workers are spawned, warm, and run many tasks; one that dies fails only
its task and is replaced. Knows nothing of cells, stages or MLflow. The parent imports no torch.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from ablations import worker

GRACE = 5.0
"""Seconds a worker gets to clean up after SIGTERM."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One unit of work."""

    key: str
    """Unique; also names the log."""
    title: str
    """What people read."""
    function: str
    """``module:function``, called with ``arguments`` and a callable ``report(done, total)``."""
    arguments: tuple[Any, ...] = ()
    """Picklable."""
    needs: frozenset[str] = frozenset()
    """Keys of tasks that come first."""
    priority: tuple[float, ...] = ()
    """Of the ready tasks, the smallest goes first."""
    here: bool = False
    """Short work for the parent process (recording: only one process then needs, and writes to, MLflow)."""


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
class _Worker:
    slot: int
    process: BaseProcess
    connection: Connection
    task: Task | None = None


@dataclass
class Scheduler:
    """Runs tasks once; use by `run`."""

    tasks: Sequence[Task]
    """The whole graph; a need that is no task of it counts as met."""
    workers: int
    """Processes at most."""
    logs: Path
    """Folder of logs, one a task."""
    observer: Observer
    """Told of everything."""
    _pool: list[_Worker] = field(default_factory=list)

    def run(self) -> None:
        """Run everything that can be run. On KeyboardInterrupt the workers are ended before it goes on up."""
        self.logs.mkdir(parents=True, exist_ok=True)
        waiting = {task.key: task for task in self.tasks}
        assert len(waiting) == len(self.tasks), "task keys are unique"
        missing = {task.key: set(task.needs) & waiting.keys() for task in self.tasks}
        try:
            while waiting or any(w.task for w in self._pool):
                ready = sorted((t for t in waiting.values() if not missing[t.key]), key=lambda t: t.priority)
                self._assign([t for t in ready if not t.here], waiting)
                mine = next((t for t in ready if t.here), None)
                if mine is not None:
                    self._run_here(mine, waiting, missing)
                elif not any(w.task for w in self._pool):
                    raise ValueError(f"tasks wait for each other: {', '.join(sorted(waiting))}")
                self._hear(waiting, missing, timeout=None if mine is None else 0)
            self._dismiss()
        finally:
            self._end()

    def log_path(self, task: Task) -> Path:
        """Where a task's output goes."""
        return self.logs / f"{task.key}.log"

    def _assign(self, ready: Sequence[Task], waiting: dict[str, Task]) -> None:
        for task in ready:
            idle = next((w for w in self._pool if w.task is None), None)
            if idle is None:
                if len(self._pool) >= self.workers:
                    return
                idle = self._spawn()
            del waiting[task.key]
            idle.task = task
            self.log_path(task).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # died while idle: heard of as end of file, like any death
                idle.connection.send((task.function, task.arguments, str(self.log_path(task))))
            self.observer.started(idle.slot, task)

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
        """Wait until some worker says something or dies, and act on it."""
        by_connection = {w.connection: w for w in self._pool}
        for connection in wait(list(by_connection), timeout):
            member = by_connection[connection]  # type: ignore[index]
            try:
                kind, first, second = member.connection.recv()
            except (EOFError, OSError):
                self._bury(member, waiting)
                continue
            task = member.task
            assert task is not None, "only a busy worker speaks"
            if kind == "progress":
                self.observer.progressed(member.slot, task, first, second)
                continue
            member.task = None
            if kind == "done":
                self._met(task, missing)
                self.observer.finished(member.slot, task, first, second)
            else:
                self._fail(member.slot, task, first, waiting)

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

    def _bury(self, member: _Worker, waiting: dict[str, Task]) -> None:
        """Take a dead worker out of the pool; its task has failed. The next task gets a new worker."""
        member.process.join(GRACE)
        self._pool.remove(member)
        member.connection.close()
        if member.task is not None:
            message = f"worker process died: {_why(member.process.exitcode)}"
            with self.log_path(member.task).open("a") as log:
                log.write(f"{message}\n")
            self._fail(member.slot, member.task, message, waiting)

    def _spawn(self) -> _Worker:
        slot = min(set(range(self.workers)) - {w.slot for w in self._pool})
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        before = {name: os.environ.get(name) for name in worker.ENVIRONMENT}
        os.environ.update(worker.ENVIRONMENT)
        try:
            process = context.Process(target=worker.serve, args=(theirs,), name=f"worker-{slot}")
            process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()
        member = _Worker(slot, process, ours)
        self._pool.append(member)
        return member

    def _dismiss(self) -> None:
        """Ask every idle worker to leave."""
        for member in self._pool:
            try:
                member.connection.send(None)
            except OSError:
                continue

    def _end(self) -> None:
        """Leave no process behind: idle ones go by themselves, busy ones by SIGTERM, then SIGKILL."""
        for member in self._pool:
            if member.task is not None:
                member.process.terminate()
        deadline = time.monotonic() + GRACE
        for member in self._pool:
            member.connection.close()
            member.process.join(max(0.0, deadline - time.monotonic()))
            if member.process.is_alive():
                member.process.kill()
                member.process.join()
        self._pool.clear()


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


def _why(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    name = signal.Signals(-exitcode).name
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
