"""The interface of a launcher: a pool that runs several tasks at a time and reports their events."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ablations.failures import Lost


@dataclass(frozen=True, kw_only=True)
class Task:
    """One unit of work."""

    key: str
    """Unique key; also the stem of the log's name."""
    title: str
    """Readable title."""
    function: str
    """``module:function``, called with ``arguments`` and a `Report`."""
    arguments: tuple[Any, ...] = ()
    """Picklable arguments."""
    after_oom: tuple[Any, ...] | None = None
    """Arguments of the retry after the task ran out of memory; None: no retry."""
    needs: frozenset[str] = frozenset()
    """Keys of the tasks that must finish first."""
    priority: tuple[float, ...] = ()
    """Among ready tasks, the smallest priority goes first."""
    here: bool = False
    """Whether the task runs in the parent: for short work such as recording, so that only one process imports MLflow."""
    spare: bool = False
    """Whether only optional results need it, so that its failure does not end a run that stops at the first failure."""
    parts: tuple[Task, ...] = ()
    """Tasks that this task performs together; its function returns each part's result or a `Lost`. Other tasks may depend on a
    part, and a part that failed is retried alone."""


@dataclass(frozen=True)
class Progress:
    """A task reported its progress."""

    done: int
    """Units done."""
    total: int
    """Total units."""


@dataclass(frozen=True)
class Done:
    """A task has its result."""

    result: Any
    """Return value of the function."""
    seconds: float
    """Duration in seconds."""


End = Done | Lost
Event = Progress | End
Report = Callable[[int, int], None]
"""What a task's function calls with the units done and their total."""


def died(reason: str) -> Lost:
    """Return the event of a task whose process died: ``killed by SIGKILL``, ``exit code 7``, ``preempted``, ..."""
    return Lost("killed", f"worker process died: {reason}")


class Pool(Protocol):
    """Runs tasks, for use by a single thread. It starts nothing before the first `submit` and is unusable after `stop`."""

    @property
    def capacity(self) -> int:
        """Number of tasks that can run at the same time."""

    def submit(self, task: Task, log: Path) -> None:
        """Start a task, and append its output to ``log``. Call it only while fewer than ``capacity`` tasks run."""

    def events(self, timeout: float | None) -> list[tuple[str, Event]]:
        """Wait for events, at most ``timeout`` seconds (None: no limit), and return them with the keys of their tasks."""

    def halt(self) -> None:
        """Ask running tasks to stop soon; a stage that supports it saves a checkpoint and fails with kind ``stopped``."""

    def stop(self, grace: float) -> None:
        """End all tasks: running ones get ``grace`` seconds to clean up after SIGTERM."""


@contextmanager
def no_interrupt() -> Iterator[None]:
    """Block SIGINT: processes started meanwhile inherit this, and never receive Ctrl-C; this process handles it afterwards."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
