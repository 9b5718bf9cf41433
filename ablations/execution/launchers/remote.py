"""What Ray and Slurm have in common: a task is a job on some machine, which runs it in a worker process of its own.

A remote task therefore has the same environment and log as a local one, and its death is reported in the same way. All machines
must share the runs folder: there, a job writes its progress to a note, and finds the requests to stop (`halt_file`, `end_file`).
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ablations.execution.failures import Lost
from ablations.execution.launchers.local import LocalPool
from ablations.execution.launchers.pool import Event, Failed, Progress, Task, died
from ablations.execution.worker import exit_on_signal
from rrpo import plugins

POLL = 0.2
"""Seconds between checks of the jobs."""
LOOK = 1.0
"""Seconds between a job's checks for requests to stop."""
REASON = 300
"""Maximum length of a cluster's error message, in characters; the end is kept."""
CLEAN_UP = 20.0
"""Seconds that a task gets to clean up when its job ends; less than Slurm's KillWait of 30 s."""


def run_job(pickled: bytes, log: Path, paths: Sequence[str], plugin_files: Sequence[str], note: Path) -> Event:
    """Run one task in a worker process on this machine and return its last event.

    Args:
        pickled: The task. It is unpickled only after ``paths`` and plugins are set up, because its classes may come from them.
        log: File to which the task's output is appended.
        paths: Entries to add to ``sys.path``.
        plugin_files: Plugins to load.
        note: File for the task's progress.
    """
    signal.signal(signal.SIGTERM, exit_on_signal)
    try:
        sys.path += [path for path in paths if path not in sys.path]
        host = _host(tuple(plugin_files))
        if not log.parent.is_dir():
            raise FileNotFoundError(f"{os.uname().nodename} does not see {log.parent}: the runs folder must be shared")
        if not end_file(note).exists():  # a job may have waited in a queue
            host.submit(pickle.loads(pickled), log)
        with contextlib.suppress(SystemExit):
            while not end_file(note).exists():
                if halt_file(note).exists():
                    host.halt()
                for event in host.events(LOOK):
                    if not isinstance(event, Progress):
                        return event
                    note.write_text(json.dumps([event.done, event.total]))
        host.stop(CLEAN_UP)
        return died(0, "ended on request")
    except Exception as error:
        lost = Lost.of(error)
        return Failed(0, lost.reason, lost.kind)


@cache
def _host(plugin_files: tuple[str, ...]) -> LocalPool:
    """Return the pool of this process's worker. Jobs that run in one process, as Ray's may, share the worker."""
    plugins.use(plugin_files)
    return LocalPool(1)


def halt_file(note: Path) -> Path:
    """Return the file whose existence asks a job to stop at the next step with a checkpoint."""
    return note.with_suffix(".halt")


def end_file(note: Path) -> Path:
    """Return the file whose existence asks a job to end now."""
    return note.with_suffix(".end")


class JobPool(ABC):
    """A `Pool` whose tasks are jobs."""

    def __init__(self, workers: int, folder: Path) -> None:
        self.capacity = workers
        self.folder = folder
        self._jobs: dict[int, tuple[Any, Path]] = {}

    @abstractmethod
    def start(self, *arguments: Any) -> Any:
        """Start a job that calls `run_job` with these arguments, and return its future (``done``, ``result``)."""

    def result(self, job: Any) -> Event:
        """Return what `run_job` returned in a job that has ended. Raise an error that explains why there is nothing."""
        event: Event = job.result()
        return event

    def submit(self, task: Task, log: Path) -> int:
        """Start a task as a job."""
        slot = min(set(range(self.capacity)) - self._jobs.keys())
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / f"{task.key}-{os.getpid()}.progress"
        _remove(note)
        self._jobs[slot] = self.start(pickle.dumps(task), log, sys.path, plugins.files(), note), note
        return slot

    def events(self, timeout: float | None) -> list[Event]:
        """Return the progress in the jobs' notes and the results of ended jobs."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            events = [event for slot in list(self._jobs) for event in self._check(slot)]
            if events or (deadline is not None and time.monotonic() >= deadline):
                return events
            time.sleep(POLL)

    def halt(self) -> None:
        """Ask all jobs to stop, by files in the shared folder."""
        for _, note in self._jobs.values():
            halt_file(note).touch()

    def stop(self, grace: float) -> None:
        """Ask all jobs to end, and wait for them at most ``grace`` seconds. Each ends after `CLEAN_UP` seconds at the latest."""
        for _, note in self._jobs.values():
            end_file(note).touch()
        deadline = time.monotonic() + grace
        while not all(job.done() for job, _ in self._jobs.values()) and time.monotonic() < deadline:
            time.sleep(POLL)
        self._jobs.clear()

    def _check(self, slot: int) -> list[Event]:
        job, note = self._jobs[slot]
        if job.done():
            del self._jobs[slot]
            _remove(note)
            try:
                return [replace(self.result(job), slot=slot)]
            except Exception as error:  # the cluster has lost the job
                return [died(slot, " ".join(str(error).split())[-REASON:])]
        with contextlib.suppress(OSError, ValueError):  # no note, or half of one
            progress = Progress(slot, *json.loads(note.read_text()))
            note.unlink()  # reported once
            return [progress]
        return []


def _remove(note: Path) -> None:
    for path in (note, halt_file(note), end_file(note)):
        path.unlink(missing_ok=True)
