"""A launcher's far end: one local worker process on whatever machine a Ray actor or a Slurm job runs.

So a task meets the same environment, signals and log as here, and how its process died is told in the same words.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from ablations.execution.launchers.local import LocalPool
from ablations.execution.launchers.pool import Event, Progress, Task
from rrpo import plugins

LISTEN = 1.0
"""Seconds between two looks for a request to stop."""


class Host(LocalPool):
    """A pool of one worker process."""

    def __init__(self, paths: Sequence[str], plugin_files: Sequence[str] = ()) -> None:
        """``paths`` and ``plugin_files`` are those of the process that hands the tasks out.

        Raises PluginError where a plugin file is not shared with this machine.
        """
        super().__init__(1)
        sys.path += [path for path in paths if path not in sys.path]
        plugins.use(plugin_files)

    def submit(self, task: Task, log: Path) -> int:
        """As the pool's. Raises FileNotFoundError where the runs folder is not shared with this machine."""
        if not log.parent.is_dir():
            raise FileNotFoundError(f"{os.uname().nodename} does not see {log.parent}: the runs folder must be shared")
        with _no_main():
            return super().submit(task, log)


def run_alone(
    pickled: bytes, log: Path, paths: Sequence[str], plugin_files: Sequence[str], note: Path, grace: float
) -> Event:
    """The body of a batch job: one task to its end; how far it is goes into the file ``note``, a stop comes by `halt_file`.

    The task comes pickled, since its modules may be in ``paths``, or plugins.
    """
    signal.signal(signal.SIGTERM, _leave)
    host = Host(paths, plugin_files)
    try:
        host.submit(pickle.loads(pickled), log)
        while True:
            if halt_file(note).exists():
                host.halt()
            for event in host.events(LISTEN):
                if not isinstance(event, Progress):
                    return event
                partial = note.with_suffix(".partial")
                partial.write_text(json.dumps([event.done, event.total]))
                os.replace(partial, note)
    finally:
        host.stop(grace)


def halt_file(note: Path) -> Path:
    """Asks the job that writes ``note`` to stop soon."""
    return note.with_suffix(".halt")


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """A spawned process imports the program of the one that starts it; here that is Ray's or submitit's own."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _leave(signum: int, frame: object) -> NoReturn:
    raise SystemExit(128 + signum)
