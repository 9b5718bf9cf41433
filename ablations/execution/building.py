"""Build the missing stages of a set of stages on this machine, and report why any of them failed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from ablations.execution import jobs, launchers
from ablations.execution.estimate import Estimator
from ablations.execution.launchers import Launcher
from ablations.execution.progress_display import Display
from ablations.execution.runs_folder import RunsFolder
from ablations.execution.scheduler import Scheduler
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
    pool = launchers.start(Launcher(), workers, folder.logs)
    with Display(console, len(missing), 0, left, counted="stage") as display:
        Scheduler(tasks, pool, folder.logs, display).run()
    keys = {jobs.stage_key(stage): stage for stage in roots}
    return {str(keys[key]): reason for key, reason in display.failures.items() if key in keys}
