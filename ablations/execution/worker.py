"""The main loop of a worker process: receive tasks from a pipe, run them one at a time, send back the results.

A message to the worker is ``(function, arguments, log path)``. The worker answers with events: `Progress` any number of times,
then `Done` or `Lost`. The message None asks it to stop the task that it runs. SIGTERM ends it at once, after cleaning up.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from ablations.execution.launchers.pool import Done, End, Progress, Report
from ablations.failures import Lost
from rrpo import plugins
from rrpo.pipeline.parent import die_with

REPORT_EVERY = 0.1
"""Minimum seconds between progress messages."""
QUIET = ("claimed", "stopped")
"""Kinds that are not real failures. Their tracebacks are not logged, because another runner may be writing to the log."""
ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1") | {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Environment of every worker, set before it starts. One thread each, because bit-identical results require it. glibc keeps freed
memory, because fresh pages for every large tensor cost up to half of a step, and asks for huge pages, which save 5 to 15 %."""


_connection: Connection | None = None
"""The pipe to the parent; None in a process that is no worker."""


def serve(descriptor: int, parent: int) -> None:
    """Run tasks until the pipe is closed. The worker dies with the process whose id is ``parent``, at the pipe's other end; on
    systems other than Linux, when it next reports progress or waits for a task."""
    global _connection
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    signal.signal(signal.SIGTERM, exit_on_signal)
    plugins.load_all()  # unpickling a task's arguments may need classes of plugins
    _connection = Connection(descriptor)
    with suppress(EOFError):
        while True:
            if (message := _connection.recv()) is None:
                continue  # the request to stop came after the task had ended
            function, arguments, log = message
            try:
                _write_to(Path(log))
            except OSError as error:  # such as a full disk, for which the run pauses
                answer: End = Lost.of(error)
            else:
                answer = perform(function, arguments, _reporter(_connection), sys.stderr.write)
                _flush()
            _connection.send(answer)


def stopping() -> bool:
    """Return whether this worker was asked to stop: a busy worker receives no other message."""
    return _connection is not None and _connection.poll()


def _reporter(connection: Connection) -> Report:
    """Return a function that sends progress through the pipe, at most every `REPORT_EVERY` seconds."""
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last >= REPORT_EVERY:
            last = now
            connection.send(Progress(done, total))

    return report


def perform(function: str, arguments: tuple[Any, ...], report: Report, log: Callable[[str], Any]) -> End:
    """Call a task's function and return how it ended; ``log`` gets the traceback of an error."""
    start = time.monotonic()
    try:
        module, name = function.split(":")
        result = getattr(importlib.import_module(module), name)(*arguments, report)
    except Exception as error:
        lost = Lost.of(error)
        if lost.kind not in QUIET:
            when = time.strftime("%Y-%m-%d %H:%M:%S")
            with suppress(OSError):
                log(f"{when}, process {os.getpid()} on {os.uname().nodename}:\n{traceback.format_exc()}\n")
        return lost
    return Done(result, time.monotonic() - start)


def _write_to(log: Path) -> None:
    """Redirect this process's output to a file, including that of C libraries."""
    with log.open("a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # on a full disk the log is truncated, but the answer must still be sent
            stream.flush()


def exit_on_signal(signum: int, frame: object) -> NoReturn:
    """Handle a signal by unwinding the stack, so that a partially built stage is removed."""
    raise SystemExit(128 + signum)
