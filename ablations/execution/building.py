"""Build the missing stages of a set of stages, and report why any of them failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from ablations.commands import end_if_failed
from ablations.execution import environment, jobs, launchers
from ablations.execution.estimate import Estimator
from ablations.execution.launchers import Launching
from ablations.execution.progress_display import Display
from ablations.execution.request import worker_count
from ablations.execution.scheduler import Scheduler
from ablations.execution.time_left import TimeLeft
from ablations.tracking.runs_folder import RunsFolder, check
from rrpo.pipeline.stages import Stage, missing_below


@dataclass(frozen=True)
class Builder:
    """Builds stages for a command."""

    folder: RunsFolder
    """The runs folder."""
    device: str
    """Device, ``cpu`` or ``cuda``."""
    workers: int
    """Number of worker processes."""
    console: Console
    """Console of the progress and of failures."""
    launching: Launching = field(default_factory=Launching)
    """Where stages are built; by default on this machine."""

    @staticmethod
    def of(device: str, workers: int | None, runs_dir: Path, console: Console) -> Builder:
        """Check the options of a command. Raises InputError if one is invalid."""
        folder, machine = check(runs_dir), environment.resolve_device(device)
        return Builder(folder, machine, worker_count(workers, machine), console)

    def build(self, roots: Sequence[Stage], into: RunsFolder | None = None) -> dict[str, str]:
        """Build ``roots`` and all their inputs that are missing, in ``into`` if another folder is given.

        Returns:
            Title of each root that failed -> reason.

        Raises:
            KeyboardInterrupt: A signal stopped the build. Finished stages are kept.
        """
        folder, estimator = into or self.folder, Estimator(self.folder.root, self.device)
        missing = jobs.longest_first(missing_below(roots, folder.root), estimator)
        tasks = jobs.stage_tasks(missing, folder.root, self.device)
        left = TimeLeft(tasks, {stage.folder: stage for stage in missing}, estimator, self.workers)
        pool = launchers.start(self.launching, self.workers, folder.logs)
        with Display(self.console, len(missing), 0, left, counted="stage") as display:
            Scheduler(tasks, pool, folder.logs, display).run()
        titles = {str(stage) for stage in roots}
        return {title: reason for title, reason in display.failures.items() if title in titles}

    def require(self, roots: Sequence[Stage]) -> list[Path]:
        """Build ``roots`` and return their folders. If any fails, print the reasons and exit with status 1."""
        end_if_failed(self.build(roots), self.console)
        return [stage.path(self.folder.root) for stage in roots]
