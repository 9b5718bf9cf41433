"""The remote side of a launcher: one local worker process on the machine of a Ray actor or a Slurm job.

A remote task therefore has the same environment, signals and log as a local one, and its death is reported in the same way.
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

POLL = 1.0
"""Seconds between checks for a request to stop."""


class Host(LocalPool):
    """A pool of one worker process."""

    def __init__(self, paths: Sequence[str], plugin_files: Sequence[str] = ()) -> None:
        """Create the pool with the ``sys.path`` and the plugin files of the process that submits tasks.

        Raises:
            PluginError: A plugin file is not shared with this machine.
        """
        super().__init__(1)
        sys.path += [path for path in paths if path not in sys.path]
        plugins.use(plugin_files)

    def submit(self, task: Task, log: Path) -> int:
        """Submit a task. Raise FileNotFoundError if the runs folder is not shared with this machine."""
        if not log.parent.is_dir():
            raise FileNotFoundError(f"{os.uname().nodename} does not see {log.parent}: the runs folder must be shared")
        with _hide_main():
            return super().submit(task, log)


def run_alone(
    pickled: bytes, log: Path, paths: Sequence[str], plugin_files: Sequence[str], note: Path, grace: float
) -> Event:
    """Run one task in a batch job and return its last event.

    Args:
        pickled: The task. It is unpickled only after ``paths`` and plugins are set up, because its classes may come from them.
        log: File to which the task's output is appended.
        paths: Entries to add to ``sys.path``.
        plugin_files: Plugins to load.
        note: File for the task's progress; `halt_file` of it requests a stop.
        grace: Seconds that the task gets to clean up when the job is ended.
    """
    signal.signal(signal.SIGTERM, _exit)
    host = Host(paths, plugin_files)
    try:
        host.submit(pickle.loads(pickled), log)
        while True:
            if halt_file(note).exists():
                host.halt()
            for event in host.events(POLL):
                if not isinstance(event, Progress):
                    return event
                partial = note.with_suffix(".partial")
                partial.write_text(json.dumps([event.done, event.total]))
                os.replace(partial, note)
    finally:
        host.stop(grace)


def halt_file(note: Path) -> Path:
    """Return the file whose existence asks the job that writes ``note`` to stop."""
    return note.with_suffix(".halt")


@contextlib.contextmanager
def _hide_main() -> Iterator[None]:
    """Hide ``__main__`` while spawning: a spawned process would import it, and here it is Ray's or submitit's program."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _exit(signum: int, frame: object) -> NoReturn:
    raise SystemExit(128 + signum)
