"""Run each task as a Slurm job through submitit; without sbatch, submitit's local executor is used instead.

All nodes must share the runs folder. Jobs outlive this process, and the next run of the command finds the stages that they built.
submitit requeues a preempted job, which resumes from its checkpoint.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from ablations.execution.launchers import Launching, sbatch_options
from ablations.execution.launchers.pool import End, no_interrupt
from ablations.execution.launchers.remote import JobPool, run_job
from rrpo.errors import InputError

MINUTES = 24 * 60
"""Default time limit of a job in minutes; ``--slurm time=...`` overrides it."""


class SlurmPool(JobPool):
    """A `Pool` of batch jobs."""

    def __init__(self, workers: int, folder: Path, options: Launching) -> None:
        super().__init__(workers, folder)
        self.cluster = "slurm" if shutil.which("sbatch") else "local"
        self._parameters: dict[str, Any] = {
            "name": "rrpo",
            "timeout_min": MINUTES,
            "cpus_per_task": options.cpus_per_task or 1,
            "gpus_per_node": int(options.gpus_per_task or 0),
        }
        for name, value in sbatch_options(options).items():
            self._parameters[f"slurm_{name}"] = int(value) if value.isdecimal() else value
        with tempfile.TemporaryDirectory() as scratch:  # refuses wrong options before anything is written
            self._make_executor(Path(scratch))

    def _make_executor(self, folder: Path) -> Any:
        import submitit

        executor = submitit.AutoExecutor(folder=folder, cluster=self.cluster)
        try:
            executor.update_parameters(**self._parameters)
        except (NameError, TypeError, ValueError) as error:
            raise InputError(
                "submitit does not accept these --slurm options", got=error, fix="use the names of sbatch options"
            ) from error
        return executor

    @cached_property
    def _executor(self) -> Any:
        return self._make_executor(self.folder)

    def start(self, *arguments: Any) -> Any:
        """Submit a job."""
        with no_interrupt():
            return self._executor.submit(run_job, *arguments)

    def result(self, job: Any) -> End:
        """Return how the job's task ended and remove its files, unless they may explain why it died."""
        where = f"(job {job.job_id}, see {job.paths.stderr})"
        if self.cluster == "local" and not job.paths.result_pickle.exists():  # submitit would wait for it
            raise RuntimeError(f"no result {where}")
        try:
            end = super().result(job)
        except Exception as error:  # submitit raises its own errors for a job without a result
            raise RuntimeError(f"{'timed out' if 'timed-out' in str(error) else job.state} {where}") from error
        for path in self.folder.glob(f"{job.job_id}_*"):
            path.unlink()
        return end

    def stop(self, grace: float) -> None:
        """Cancel all jobs: Slurm ends them itself, those of the local executor find the request to end."""
        for job, _ in self._jobs.values():
            job.cancel(check=False)
        super().stop(grace)
