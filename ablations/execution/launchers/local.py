"""Worker processes on this machine. Each runs many tasks; dead workers are replaced, and all of them die with the parent."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from ablations.execution import worker
from ablations.execution.launchers.pool import Event, Progress, Task, died, no_interrupt

EXIT_WAIT = 5.0
"""Seconds to wait for the exit code of a worker that has closed its pipe."""


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    gpu: str | None
    task: str | None = None
    """Key of the task that it runs."""


class LocalPool:
    """A `Pool` of worker processes."""

    def __init__(self, workers: int, gpus: Sequence[str] = ()) -> None:
        """Create the pool; workers start with their first task.

        Args:
            workers: Number of workers.
            gpus: Names as in CUDA_VISIBLE_DEVICES; a worker gets the least used one. If empty, workers see the parent's devices.
        """
        self.capacity = workers
        self._gpus = list(gpus)
        self._workers: list[_Worker] = []

    def submit(self, task: Task, log: Path) -> None:
        """Send a task to an idle worker, or to a new one."""
        member = next((w for w in self._workers if w.task is None), None) or self._spawn()
        member.task = task.key
        with contextlib.suppress(OSError):  # the worker died while idle: `events` reports it like any other death
            member.connection.send((task.function, task.arguments, str(log)))

    def events(self, timeout: float | None) -> list[tuple[str, Event]]:
        """Return the workers' messages as events; a closed pipe means that the worker died."""
        by_connection = {w.connection: w for w in self._workers}
        received = [self._receive(by_connection[c]) for c in wait(list(by_connection), timeout)]  # type: ignore[index]
        return [(key, event) for key, event in received if key is not None]

    def halt(self) -> None:
        """Send the busy workers the request to stop."""
        for member in self._workers:
            if member.task:
                with contextlib.suppress(OSError):  # it has died, as above
                    member.connection.send(None)

    def stop(self, grace: float) -> None:
        """End all workers: idle ones exit when their pipe closes, busy ones get SIGTERM, then SIGKILL."""
        for member in self._workers:
            if member.task:
                member.process.terminate()
            member.connection.close()
        deadline = time.monotonic() + grace
        for member in self._workers:
            try:
                member.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()
        self._workers.clear()

    def _receive(self, member: _Worker) -> tuple[str | None, Event]:
        """Return a worker's event with the key of its task; None if it died while it was idle."""
        key = member.task
        try:
            event: Event = member.connection.recv()
        except (EOFError, OSError):
            self._workers.remove(member)
            member.connection.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                member.process.wait(EXIT_WAIT)
            event = died(describe_exit(member.process.returncode))
        if not isinstance(event, Progress):
            member.task = None
        return key, event

    def _spawn(self) -> _Worker:
        gpu = min(self._gpus, key=[w.gpu for w in self._workers].count, default=None)
        ours, theirs = Pipe()
        program = (
            f"import sys; sys.path[:] = {sys.path}; from ablations.execution.worker import serve; "
            f"serve({theirs.fileno()}, {os.getpid()})"
        )
        with no_interrupt():
            process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                env=os.environ | worker.ENVIRONMENT | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}),
                pass_fds=[theirs.fileno()],
            )
        theirs.close()
        member = _Worker(process, ours, gpu)
        self._workers.append(member)
        return member


def describe_exit(code: int | None) -> str:
    """Describe a process's exit code; a negative one is the number of the signal that killed it."""
    if code is None or code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
