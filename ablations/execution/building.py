"""Build the missing stages of a set of stages on this machine, and report why any of them failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from ablations.execution import jobs, launchers
from ablations.execution.estimate import Estimator
from ablations.execution.launchers import Launcher
from ablations.execution.progress_display import Display
from ablations.execution.runs_folder import RunsFolder
from ablations.execution.scheduler import Failure, Scheduler, Task
from ablations.execution.time_left import TimeLeft
from rrpo.pipeline.missing import missing_below
from rrpo.pipeline.stages import Stage


def build(
    roots: Sequence[Stage], folder: RunsFolder, estimator: Estimator, workers: int, console: Console
) -> dict[str, str]:
    """Build ``roots`` and all their inputs that are missing in ``folder``, on the estimator's device.

    Returns:
        Title of each root that failed -> reason.

    Raises:
        KeyboardInterrupt: A signal stopped the build. Finished stages are kept.
    """
    missing = missing_below(roots, folder.root)
    tasks = jobs.stage_tasks(missing, folder.root, estimator.device, jobs.longest_first(missing, estimator))
    left = TimeLeft(tasks, {jobs.stage_key(stage): stage for stage in missing}, estimator, workers)
    display = _BuildDisplay(console, len(missing), left)
    pool = launchers.start(Launcher(), workers, folder.logs)
    with display:
        Scheduler(tasks, pool, folder.logs, display).run()
    keys = {jobs.stage_key(stage): stage for stage in roots}
    return {str(keys[key]): reason for key, reason in display.failures.items() if key in keys}


class _BuildDisplay(Display):
    """A display that counts stages and collects the reasons of failures."""

    def __init__(self, console: Console, missing: int, left: TimeLeft) -> None:
        self.failures: dict[str, str] = {}
        """Task key -> reason."""
        self._left = left
        super().__init__(console, missing, 0, left.__str__, counted="stage")

    def started(self, slot: int, task: Task) -> None:
        """Handle the scheduler's event of the same name."""
        self._left.started(task.key)
        super().started(slot, task)

    def progressed(self, slot: int, task: Task, done: int, total: int) -> None:
        """Handle the scheduler's event of the same name."""
        self._left.progressed(task.key, done, total)
        super().progressed(slot, task, done, total)

    def finished(self, slot: int | None, task: Task, result: Any, seconds: float) -> None:
        """Handle the scheduler's event of the same name."""
        self._left.ended(task.key, result)
        super().finished(slot, task, result, seconds)

    def failed(self, slot: int | None, task: Task, failure: Failure) -> None:
        """Handle the scheduler's event of the same name."""
        self._left.ended(task.key)
        super().failed(slot, task, failure)
        cause = "" if failure.cause == task.title else f"{failure.cause}: "
        self.failures[task.key] = f"{cause}{failure.message} (log: {failure.log})"
