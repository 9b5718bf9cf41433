"""Worker processes on this machine. Each runs many tasks; dead workers are replaced, and all of them die with the parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from ablations.execution import worker
from ablations.execution.launchers.pool import Died, Event, Progress, Task

EXIT_WAIT = 5.0
"""Seconds to wait for the exit code of a worker that has closed its pipe."""


@dataclass
class _Worker:
    slot: int
    process: BaseProcess
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
        """Send `worker.STOP` to the busy workers."""
        for member in self._workers:
            if member.busy and member.process.is_alive() and member.process.pid:
                os.kill(member.process.pid, worker.STOP)

    def stop(self, grace: float) -> None:
        """End all workers: idle ones exit when their pipe closes, busy ones get SIGTERM, then SIGKILL."""
        for member in self._workers:
            if member.busy:
                member.process.terminate()
        deadline = time.monotonic() + grace
        for member in self._workers:
            member.connection.close()
            member.process.join(max(0.0, deadline - time.monotonic()))
            if member.process.is_alive():
                member.process.kill()
                member.process.join()
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
        member.process.join(EXIT_WAIT)
        self._workers.remove(member)
        member.connection.close()
        return Died(member.slot, describe_exit(member.process.exitcode)) if member.busy else None

    def _spawn(self) -> _Worker:
        slot = min(set(range(self.capacity)) - {w.slot for w in self._workers})
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        environment = dict(worker.ENVIRONMENT)
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        previous = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        # Inherited by the worker, which unblocks the signal once its handler is installed; before, it would kill the worker.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {worker.STOP})
        try:
            process = context.Process(target=worker.serve, args=(theirs, os.getpid(), slot), name=f"worker-{slot}")
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for name, value in previous.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()
        member = _Worker(slot, process, ours)
        self._workers.append(member)
        return member


def describe_exit(exitcode: int | None) -> str:
    """Describe a process's exit code; a negative one is the number of the signal that killed it."""
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    name = signal.Signals(-exitcode).name
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
