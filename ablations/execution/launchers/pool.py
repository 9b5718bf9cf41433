"""The interface of a launcher: a pool of slots that each run one task at a time and report events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


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
    parts: tuple[Task, ...] = ()
    """Tasks that this task performs together; its function returns each part's result or a `Lost`. Other tasks may depend on a
    part, and a part that failed is retried alone."""


@dataclass(frozen=True)
class Progress:
    """A task reported its progress."""

    slot: int
    """Slot of the task."""
    done: int
    """Units done."""
    total: int
    """Total units."""


@dataclass(frozen=True)
class Done:
    """A task has its result; the slot is free."""

    slot: int
    """Slot of the task."""
    result: Any
    """Return value of the function."""
    seconds: float
    """Duration in seconds."""


@dataclass(frozen=True)
class Failed:
    """A task raised an exception, or its process died; the slot is free."""

    slot: int
    """Slot of the task."""
    message: str
    """One line, such as ``ErrorType: text``; the log has the traceback."""
    kind: str
    """A key of `ablations.execution.failures.KINDS`."""


def died(slot: int, reason: str) -> Failed:
    """Return the event of a task whose process died: ``killed by SIGKILL``, ``exit code 7``, ``preempted``, ..."""
    return Failed(slot, f"worker process died: {reason}", "killed")


End = Done | Failed
Event = Progress | End
Report = Callable[[int, int], None]
"""What a task's function calls with the units done and their total."""


class Pool(Protocol):
    """A pool of slots, for use by a single thread. It starts nothing before the first `submit` and is unusable after `stop`."""

    @property
    def capacity(self) -> int:
        """Number of slots: tasks that can run at the same time."""

    def submit(self, task: Task, log: Path) -> int:
        """Start a task, append its output to ``log``, and return its slot (0, 1, ...).

        Call it only while fewer than ``capacity`` tasks run.
        """

    def events(self, timeout: float | None) -> list[Event]:
        """Wait for events, at most ``timeout`` seconds (None: no limit), and return them."""

    def halt(self) -> None:
        """Ask running tasks to stop soon; a stage that supports it saves a checkpoint and fails with kind ``stopped``."""

    def stop(self, grace: float) -> None:
        """End all tasks: running ones get ``grace`` seconds to clean up after SIGTERM."""
