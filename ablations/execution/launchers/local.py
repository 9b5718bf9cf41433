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
from ablations.execution.launchers.pool import Event, Progress, Task, died

EXIT_WAIT = 5.0
"""Seconds to wait for the exit code of a worker that has closed its pipe."""


@dataclass
class _Worker:
    slot: int
    process: subprocess.Popen[bytes]
    connection: Connection
    busy: bool = False


class LocalPool:
    """A `Pool` of worker processes."""

    def __init__(self, workers: int, gpus: Sequence[str] = ()) -> None:
        """Create the pool; workers start with their first task.

        Args:
            workers: Number of slots.
            gpus: Names as in CUDA_VISIBLE_DEVICES, assigned to the slots in turn; if empty, workers see the parent's devices.
        """
        self.capacity = workers
        self._gpus = list(gpus)
        self._workers: list[_Worker] = []

    def submit(self, task: Task, log: Path) -> int:
        """Send a task to an idle worker, or to a new one."""
        member = next((w for w in self._workers if not w.busy), None) or self._spawn()
        member.busy = True
        with contextlib.suppress(OSError):  # the worker died while idle: `events` reports it like any other death
            member.connection.send((task.function, task.arguments, str(log)))
        return member.slot

    def events(self, timeout: float | None) -> list[Event]:
        """Return the workers' messages as events; a closed pipe means that the worker died."""
        by_connection = {w.connection: w for w in self._workers}
        received = [self._receive(by_connection[c]) for c in wait(list(by_connection), timeout)]  # type: ignore[index]
        return [event for event in received if event is not None]

    def halt(self) -> None:
        """Send the busy workers the request to stop."""
        for member in self._workers:
            if member.busy:
                with contextlib.suppress(OSError):  # it has died, as above
                    member.connection.send(None)

    def stop(self, grace: float) -> None:
        """End all workers: idle ones exit when their pipe closes, busy ones get SIGTERM, then SIGKILL."""
        for member in self._workers:
            if member.busy:
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

    def _receive(self, member: _Worker) -> Event | None:
        try:
            event: Event = member.connection.recv()
        except (EOFError, OSError):
            return self._remove_dead(member)
        member.busy = isinstance(event, Progress)
        return event

    def _remove_dead(self, member: _Worker) -> Event | None:
        """Remove a dead worker; return None if it was idle."""
        self._workers.remove(member)
        member.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            member.process.wait(EXIT_WAIT)
        return died(member.slot, describe_exit(member.process.returncode)) if member.busy else None

    def _spawn(self) -> _Worker:
        slot = min(set(range(self.capacity)) - {w.slot for w in self._workers})
        gpu = {"CUDA_VISIBLE_DEVICES": self._gpus[slot % len(self._gpus)]} if self._gpus else {}
        ours, theirs = Pipe()
        program = (
            f"import sys; sys.path[:] = {sys.path}; from ablations.execution.worker import serve; "
            f"serve({theirs.fileno()}, {os.getpid()}, {slot})"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.DEVNULL,
            env=os.environ | worker.ENVIRONMENT | gpu,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        member = _Worker(slot, process, ours)
        self._workers.append(member)
        return member


def describe_exit(code: int | None) -> str:
    """Describe a process's exit code; a negative one is the number of the signal that killed it."""
    if code is None or code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
