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
from functools import cache
from pathlib import Path
from typing import Any

from ablations.execution.launchers.local import LocalPool
from ablations.execution.launchers.pool import End, Event, Progress, Task, died
from ablations.execution.worker import exit_on_signal
from ablations.failures import Lost
from rrpo import plugins
from rrpo.errors import InputError

POLL = 0.2
"""Seconds between checks of the jobs."""
LOOK = 1.0
"""Seconds between a job's checks for requests to stop."""
REASON = 300
"""Maximum length of a cluster's error message, in characters; the end is kept."""
CLEAN_UP = 20.0
"""Seconds that a task gets to clean up when its job ends; less than Slurm's KillWait of 30 s."""


def run_job(pickled: bytes, log: Path, paths: Sequence[str], plugin_files: Sequence[str], note: Path) -> End:
    """Run one task in a worker process on this machine and return how it ended.

    Args:
        pickled: The task. It is unpickled only after ``paths`` and plugins are set up, because its classes may come from them.
        log: File to which the task's output is appended.
        paths: Entries to add to ``sys.path``.
        plugin_files: Plugins to load.
        note: File for the task's progress.
    """
    signal.signal(signal.SIGTERM, exit_on_signal)
    try:
        with contextlib.ExitStack() as clean_up, contextlib.suppress(SystemExit):
            sys.path += [path for path in paths if path not in sys.path]
            host = _host(tuple(plugin_files))
            if not log.parent.is_dir():
                what = f"{os.uname().nodename} does not see {log.parent}"
                raise FileNotFoundError(f"{what}: the runs folder must be shared")
            clean_up.callback(host.stop, CLEAN_UP)
            if not end_file(note).exists():  # the job may have waited in a queue
                host.submit(pickle.loads(pickled), log)
            while not end_file(note).exists():
                if halt_file(note).exists():
                    host.halt()
                for _, event in host.events(LOOK):
                    if not isinstance(event, Progress):
                        clean_up.pop_all()  # the worker is idle and can run another task
                        return event
                    note.write_text(json.dumps([event.done, event.total]))
        return died("ended on request")
    except Exception as error:
        return Lost.of(error)


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
        self._jobs: dict[str, tuple[Any, Path]] = {}
        """Key of the task -> its future and its note."""
        self._refused: list[tuple[str, Event]] = []
        """Key of a task whose job the cluster did not accept, and its end, until `events` returns it."""
        self._accepted = False

    @abstractmethod
    def start(self, *arguments: Any) -> Any:
        """Start a job that calls `run_job` with these arguments, and return its future (``done``, ``result``)."""

    def result(self, job: Any) -> End:
        """Return what `run_job` returned in a job that has ended. Raise an error that explains why there is nothing."""
        end: End = job.result()
        return end

    def submit(self, task: Task, log: Path) -> None:
        """Start a task as a job."""
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / f"{task.key}-{os.getpid()}.progress"
        _remove(note)
        pickled = pickle.dumps(task)
        try:
            job = self.start(pickled, log, sys.path, plugins.files(), note)
        except Exception as error:  # the cluster's own errors have no common base class
            if not self._accepted:
                fix = "correct the options of the launcher, or see whether the cluster accepts jobs"
                raise InputError("the first job was refused", got=_short(error), fix=fix) from error
            self._refused.append((task.key, Lost("refused", f"no job could be started: {_short(error)}")))
            return
        self._accepted = True
        self._jobs[task.key] = job, note

    def events(self, timeout: float | None) -> list[tuple[str, Event]]:
        """Return the progress in the jobs' notes and the results of ended jobs."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            events = [(key, event) for key in list(self._jobs) if (event := self._check(key))] + self._refused
            self._refused = []
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

    def _check(self, key: str) -> Event | None:
        job, note = self._jobs[key]
        if job.done():
            del self._jobs[key]
            _remove(note)
            try:
                return self.result(job)
            except Exception as error:  # the cluster has lost the job
                return died(_short(error))
        with contextlib.suppress(OSError, ValueError):  # no note, or half of one
            progress = Progress(*json.loads(note.read_text()))
            note.unlink()  # reported once
            return progress
        return None


def _short(error: Exception) -> str:
    """Return an error's text in one line, of which the end is kept."""
    return " ".join(str(error).split())[-REASON:]


def _remove(note: Path) -> None:
    for path in (note, halt_file(note), end_file(note)):
        path.unlink(missing_ok=True)
