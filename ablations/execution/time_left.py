"""The time until a run's last task ends, by simulating the scheduler with estimated times."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from ablations.execution.estimate import Estimator, duration
from ablations.execution.launchers.pool import Task
from rrpo.pipeline.stages import Stage

SHARE = 0.01
"""Maximum share of a run's time that may be spent on this estimate."""


@dataclass
class _Running:
    since: float
    """Time at which it started, in seconds."""
    first: float | None = None
    """Share done at its first progress report: above 0 if it resumed from a checkpoint. None before that report."""
    done: float = 0.0
    """Share done now."""


class TimeLeft:
    """Time left in a run. Pass it the scheduler's events; it passes the measured times of stages to the estimator."""

    def __init__(
        self,
        tasks: Sequence[Task],
        stages: Mapping[str, Stage],
        estimator: Estimator,
        workers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``stages`` maps the key of a task, or of a part of one, to the stage that it builds.

        A task with parts takes the sum of their times.
        """
        self._parts = {part.key: part for task in tasks for part in task.parts}
        owners = {part.key: task.key for task in tasks for part in task.parts}
        self._open = {task.key: task for task in tasks}
        self._needs = {task.key: {owners.get(need, need) for need in task.needs} | task.needs for task in tasks}
        self._stages = dict(stages)
        self._estimator, self._workers, self._clock = estimator, workers, clock
        self.running: dict[str, _Running] = {}
        """Task key -> progress."""
        self._updated, self._cost, self._end = float("-inf"), 0.0, 0.0

    def started(self, key: str) -> None:
        """Handle the start of a task."""
        self.running[key] = _Running(self._clock())

    def progressed(self, key: str, done: int, total: int) -> None:
        """Handle a task's progress report."""
        if total and (running := self.running.get(key)):
            running.done = done / total
            running.first = running.done if running.first is None else running.first

    def stopped(self, key: str) -> None:
        """Handle the interruption of a task that will be retried, or that of a part, which is retried on its own."""
        self.running.pop(key, None)
        if part := self._parts.get(key):
            self._open[key], self._needs[key] = part, set()

    def ended(self, key: str, seconds: float | None = None) -> None:
        """Handle the end of a task or of a part of one; ``seconds`` is its stage's time, None if it failed."""
        self.stopped(key)
        self._open.pop(key, None)
        if (stage := self._stages.pop(key, None)) and seconds is not None:
            self._estimator.learn(stage, seconds)

    def __str__(self) -> str:
        if not self._stages:
            return "0 s"
        if all(self._estimator.seconds(stage) is None for stage in self._stages.values()):
            return "unknown"
        now = self._clock()
        if now - self._updated >= self._cost / SHARE:
            self._end, self._updated = now + self.seconds(), now
            self._cost = self._clock() - now
        return f"about {duration(max(self._end - now, 0.0))}"

    def seconds(self) -> float:
        """Return the seconds until the last task ends if every task takes its estimated time."""
        order = TopologicalSorter({key: self._needs[key] & self._open.keys() for key in self._open})
        order.prepare()
        busy = [(self._left(task), key) for key, task in self._open.items() if key in self.running]
        ready: list[tuple[tuple[float, ...], str]] = []
        heapq.heapify(busy)
        now = 0.0
        while order.is_active():
            for key in order.get_ready():
                if key not in self.running:
                    heapq.heappush(ready, (self._open[key].priority, key))
            while ready and len(busy) < self._workers:
                _, key = heapq.heappop(ready)
                heapq.heappush(busy, (now + self._left(self._open[key]), key))
            now, key = heapq.heappop(busy)
            order.done(key)
        return now

    def _left(self, task: Task) -> float:
        """Return the remaining seconds of a task.

        The estimate moves from the estimator's time to the task's own speed as more of its progress is observed.
        """
        keys = [part.key for part in task.parts] or [task.key]
        expected = sum(self._estimator.seconds(self._stages[key]) or 1.0 for key in keys if key in self._stages)
        if not (running := self.running.get(task.key)):
            return expected
        elapsed = self._clock() - running.since
        if running.first is None:
            return max(expected - elapsed, 0.0)
        observed = running.done - running.first
        return (1 - running.done) * ((1 - observed) * expected + elapsed)
