"""Run each task as a Slurm job through submitit; without sbatch, submitit's local executor is used instead.

All nodes must share the runs folder. Jobs outlive this process, and the next run of the command finds the stages that they built.
submitit requeues a preempted job, which resumes from its checkpoint.
"""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from ablations.errors import InputError
from ablations.execution.launchers.pool import Died, Event, Failed, Progress, Task
from ablations.execution.launchers.remote import halt_file, run_alone
from rrpo import plugins

POLL = 0.2
"""Seconds between checks of the jobs; submitit queries Slurm less often."""
MINUTES = 24 * 60
"""Default time limit of a job in minutes; ``--slurm time=...`` overrides it."""
CLEAN_UP = 20.0
"""Seconds that a task gets to clean up when Slurm ends its job; less than Slurm's KillWait of 30 s."""


@dataclass
class _Job:
    job: Any
    note: Path
    reported: Progress | None = None


class SlurmPool:
    """A `Pool` of batch jobs."""

    def __init__(
        self, workers: int, folder: Path, *, cpus: int = 1, gpus: int = 0, options: Mapping[str, str] | None = None
    ) -> None:
        self.capacity = workers
        self.folder = folder
        self.cluster = "slurm" if shutil.which("sbatch") else "local"
        self._jobs: dict[int, _Job] = {}
        sbatch = {
            f"slurm_{name}": int(value) if value.isdecimal() else value for name, value in (options or {}).items()
        }
        common = {"name": "rrpo", "timeout_min": MINUTES, "cpus_per_task": cpus, "gpus_per_node": gpus}
        self._parameters = common | sbatch
        with tempfile.TemporaryDirectory() as scratch:
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

    def submit(self, task: Task, log: Path) -> int:
        """Queue a task as a job."""
        slot = min(set(range(self.capacity)) - self._jobs.keys())
        note = self.folder / f"{task.key}.progress"
        note.unlink(missing_ok=True)
        halt_file(note).unlink(missing_ok=True)
        with _no_interrupt():
            pickled = pickle.dumps(task)
            job = self._executor.submit(run_alone, pickled, log, sys.path, plugins.files(), note, CLEAN_UP)
        self._jobs[slot] = _Job(job, note)
        return slot

    def events(self, timeout: float | None) -> list[Event]:
        """Return events from the jobs' progress files and from Slurm."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            events = [event for slot in list(self._jobs) for event in self._check_job(slot)]
            if events or (deadline is not None and time.monotonic() >= deadline):
                return events
            time.sleep(POLL)

    def halt(self) -> None:
        """Create the halt files of all jobs in the shared folder."""
        for member in self._jobs.values():
            halt_file(member.note).touch()

    def stop(self, grace: float) -> None:
        """Cancel all jobs. Slurm ends them itself; jobs of submitit's local executor get ``grace`` seconds."""
        if self.cluster == "slurm":
            for member in self._jobs.values():
                member.job.cancel(check=False)
        else:
            _terminate([int(member.job.job_id) for member in self._jobs.values() if not member.job.done()], grace)
        self._jobs.clear()

    def _check_job(self, slot: int) -> list[Event]:
        member = self._jobs[slot]
        if member.job.done():
            del self._jobs[slot]
            return [self._outcome(slot, member)]
        with suppress(OSError, ValueError):
            progress = Progress(slot, *json.loads(member.note.read_text()))
            if progress != member.reported:
                member.reported = progress
                return [progress]
        return []

    def _outcome(self, slot: int, member: _Job) -> Event:
        """Return the event of a finished job and remove its files, unless they may explain why it died."""
        job = member.job
        if self.cluster == "local" and not job.paths.result_pickle.exists():
            return Died(slot, f"its job {job.job_id} ended without a result (see {job.paths.stderr})")
        try:
            event: Event = replace(job.result(), slot=slot)
        except Exception as error:  # submitit raises its own errors for a job without a result
            return _event_without_result(slot, error, f"{job.state} (job {job.job_id}, see {job.paths.stderr})")
        for path in (*self.folder.glob(f"{job.job_id}_*"), member.note, halt_file(member.note)):
            path.unlink(missing_ok=True)
        return event


def _event_without_result(slot: int, error: Exception, state: str) -> Event:
    """Return the event of a job without a result: an error before its task began, a timeout, or a death.

    submitit reports an error before the task as a `FailedJobError` whose text contains the traceback, and a timeout as one whose
    text contains "timed-out".
    """
    from submitit.core.utils import FailedJobError

    text = str(error)
    if isinstance(error, FailedJobError) and "timed-out" not in text:
        trace = [line for line in text.split("-" * 22)[1].splitlines() if line.strip()]
        return Failed(slot, f"{trace[-1]} {state}", "bug")
    return Died(slot, f"timed out, {state}" if "timed-out" in text else state)


def _terminate(controllers: Sequence[int], grace: float) -> None:
    """End the processes of submitit's local executor; its controllers forward SIGTERM to their jobs."""
    processes: list[psutil.Process] = []
    for pid in controllers:
        with suppress(psutil.NoSuchProcess):
            controller = psutil.Process(pid)
            processes += [controller, *controller.children(recursive=True)]
            controller.terminate()
    _, alive = psutil.wait_procs(processes, timeout=grace)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=1)


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Block SIGINT, so that processes started meanwhile never receive Ctrl-C; this process handles it afterwards."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
