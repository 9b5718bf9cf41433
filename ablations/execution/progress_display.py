"""Progress of a running grid: a live display on a terminal, otherwise one line of text or JSON per event."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from ablations.execution.estimate import duration
from ablations.execution.launchers.pool import Task
from ablations.execution.time_left import TimeLeft
from ablations.failures import Failure

LINES, QUIET, JSON = "lines", "quiet", "json"
"""Modes: print all events; only failures and pauses; every event as one JSON object per line."""


class Display:
    """Receives the scheduler's events and displays them; a context manager."""

    def __init__(
        self, console: Console, cells: int, done: int, left: TimeLeft, counted: str = "cell", mode: str = LINES
    ) -> None:
        self.console = console
        self.mode = mode
        """One of `LINES`, `QUIET`, `JSON`."""
        self.counted = counted
        """What is counted: tasks whose key starts with this word and a hyphen, or all tasks for ``stage``."""
        self.cells = cells
        """Total number of counted tasks, such as the cells of a grid."""
        self.done = done
        """Number of finished ones, including those of earlier runs."""
        self.failed_cells = 0
        self.left = left
        """Estimates the time left from the events."""
        self._remaining = str(left)
        self.failures: dict[str, str] = {}
        """Title of a failed task -> kind, reason and log."""
        self.so_far: RenderableType = ""
        """Shown below the workers in a live display."""
        self.live = console.is_terminal and mode == LINES
        self._started = time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            console=console,
        )
        self._rows: dict[str, TaskID] = {}
        self._elsewhere: set[str] = set()
        self._view = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Display:
        if self.live:
            self._view.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self._view.stop()

    def started(self, task: Task) -> None:
        """Show a new task of a worker."""
        self._estimate(self.left.started, task.key)
        self._rows[task.key] = self._bars.add_task(task.title, total=None)
        self._emit("started", task=task.title)

    def progressed(self, task: Task, done: int, total: int) -> None:
        """Update a worker's progress bar."""
        self._estimate(self.left.progressed, task.key, done, total)
        self._bars.update(self._rows[task.key], completed=done, total=total)

    def finished(self, task: Task, result: Any, seconds: float) -> None:
        """Count a finished cell, or print the name of a finished stage."""
        self._estimate(self.left.ended, task.key, result)
        self._free(task)
        self.done = self._done_with(task)
        self._emit("finished", task=task.title, seconds=round(seconds, 3), done=self.done, of=self.cells)
        if self._counts(task):
            took = f" in {duration(seconds)}" if self.counted == "stage" else ""
            self.line(f"{self.counted} {self.done} of {self.cells} done: {task.title}{took} · left: {self.remaining()}")
        elif not self.live:
            self.line(f"built {task.title} in {duration(seconds)}")

    def retried(self, task: Task, failure: Failure) -> None:
        """Print why a task is retried, or was stopped on request; if another runner is building it, print this once."""
        self._estimate(self.left.stopped, task.key)
        self._free(task)
        self._emit("retried", task=task.title, kind=failure.kind, message=failure.reason)
        if failure.kind != "claimed":
            self.line(f"{failure.kind}: {task.title}: {failure.reason}")
        elif task.key not in self._elsewhere:
            self._elsewhere.add(task.key)
            self.line(f"elsewhere: {failure.reason}")

    def remaining(self) -> str:
        """Return the time left, as text."""
        return self._remaining

    def message(self, text: str) -> None:
        """Print a message that concerns no single task."""
        self._emit("message", message=text)
        self.line(text, always=True)

    def failed(self, task: Task, failure: Failure) -> None:
        """Print the failed task once, and every cell that fails because of it (``failure.cause`` names the task)."""
        self._estimate(self.left.ended, task.key)
        self.failures[task.title] = f"{failure} (log: {failure.log})"
        self._free(task)
        fields = {"kind": failure.kind, "message": failure.reason, "cause": failure.cause, "log": str(failure.log)}
        self._emit("failed", task=task.title, **fields)
        if failure.cause == task.title:
            self.line(f"FAILED {task.title}: {self.failures[task.title]}", always=True)
        if self._counts(task):
            self.failed_cells += 1
            if failure.cause != task.title and self.counted != "stage":
                self.line(f"FAILED {self.counted} {task.title}: needs {failure.cause}", always=True)

    def line(self, text: str, *, always: bool = False) -> None:
        """Print one line, above a live display or with the time since the start. In `QUIET`, print only if ``always``."""
        if self.mode == JSON or (self.mode == QUIET and not always):
            return
        stamp = "" if self.live else f"[{time.monotonic() - self._started:7.1f} s] "
        self.console.print(stamp + text, markup=False, highlight=False, soft_wrap=True)

    def _emit(self, event: str, **fields: object) -> None:
        if self.mode == JSON:
            elapsed = round(time.monotonic() - self._started, 3)
            print(json.dumps({"event": event, "time": elapsed, **fields}, ensure_ascii=False), flush=True)

    def _done_with(self, task: Task) -> int:
        """Return how many counted tasks are done, now that this task is."""
        return self.done + self._counts(task)

    def _counts(self, task: Task) -> bool:
        return self.counted == "stage" or task.key.startswith(f"{self.counted}-")

    def _free(self, task: Task) -> None:
        if task.key in self._rows:  # a task of the parent has no row
            self._bars.remove_task(self._rows.pop(task.key))

    def _estimate(self, handle: Callable[..., None], *event: Any) -> None:
        """Pass an event to the estimate, and store the text: the thread that draws must not read the estimate meanwhile."""
        handle(*event)
        self._remaining = str(self.left)

    def _render(self) -> RenderableType:
        failed = f" · {self.failed_cells} failed" if self.failed_cells else ""
        elapsed = duration(time.monotonic() - self._started)
        done = f"{self.counted}s done: {self.done} of {self.cells}{failed}"
        head = f"{done} · running {elapsed} · left: {self.remaining()}"
        return Group(Text(head, style="bold"), self._bars, self.so_far)
