"""The interface of a launcher: a pool of slots, each of which runs one task at a time and reports its events."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


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
    after_oom: tuple[Any, ...] | None = None
    """Arguments of the one more try after it ran out of memory; None: there is none."""
    needs: frozenset[str] = frozenset()
    """Keys of tasks that come first."""
    priority: tuple[float, ...] = ()
    """Of the ready tasks, the smallest goes first."""
    here: bool = False
    """Short work for the parent process (recording: only one process then needs, and writes to, MLflow)."""
    parts: tuple[Task, ...] = ()
    """Tasks that it does at once: its function returns what each of them would have returned, or a `Fault`. Others may need them,
    and one that failed is tried again by itself."""


@dataclass(frozen=True)
class Fault:
    """Why a part of a task has no result."""

    message: str
    """``ErrorType: text``, one line."""
    kind: str
    """A key of `ablations.execution.failures.KINDS`."""


@dataclass(frozen=True)
class Progress:
    """A task says how far it is."""

    slot: int
    """Where it runs."""
    done: int
    """Units done."""
    total: int
    """Units in all."""


@dataclass(frozen=True)
class Done:
    """A task has its result; the slot is free."""

    slot: int
    """Where it ran."""
    result: Any
    """What the function returned."""
    seconds: float
    """How long it took."""


@dataclass(frozen=True)
class Failed:
    """A task raised; the slot is free."""

    slot: int
    """Where it ran."""
    message: str
    """``ErrorType: text``, one line; the log has the traceback."""
    kind: str
    """A key of `ablations.execution.failures.KINDS`."""


@dataclass(frozen=True)
class Died:
    """The process that ran a task is gone, and the task with it; the slot is free."""

    slot: int
    """Where it ran."""
    reason: str
    """``killed by SIGKILL``, ``exit code 7``, ``preempted``, ..."""


Event = Progress | Done | Failed | Died


class Pool(Protocol):
    """A launcher. Starts nothing before the first `submit`; is used by one thread, and not after `stop`."""

    @property
    def capacity(self) -> int:
        """Tasks that can run at the same time."""

    def submit(self, task: Task, log: Path) -> int:
        """Start a task, whose output goes to the end of ``log``; its slot, from 0 on.

        Only while fewer than ``capacity`` tasks run.
        """

    def events(self, timeout: float | None) -> list[Event]:
        """Wait until something happens, at most ``timeout`` seconds (None: as long as it takes); what has happened."""

    def halt(self) -> None:
        """Ask what runs to stop soon: a stage that can saves a checkpoint and fails as ``stopped``."""

    def stop(self, grace: float) -> None:
        """Leave nothing running: busy tasks get ``grace`` seconds to clean up after SIGTERM."""
