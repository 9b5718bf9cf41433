"""The body of a worker process: takes tasks from a pipe, runs them one by one, sends back what came of each.

Messages to the worker are ``(function, arguments, log path)``. It answers ``("progress", done, total)``
any number of times and then ``("done", result, seconds)`` or ``("failed", message, kind)``.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from ablations.execution.failures import kind_of
from rrpo import plugins

PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""
STOP = signal.SIGUSR1
"""Asks a worker to stop at the next step, with a checkpoint; SIGTERM ends it at once, cleaning up."""
REPORT_EVERY = 0.1
"""Seconds between progress messages."""
QUIET = ("claimed", "stopped")
"""Kinds that are no failures: the log, which may be another runner's just now, has no traceback of them."""
ENVIRONMENT = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")} | {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
}
"""Of every worker, in place before it starts: one thread each, bit-equality needs it; and glibc keeps the memory it has been
given, since fresh pages for every large tensor cost up to half of a step."""


def serve(connection: Connection, parent: int) -> None:
    """Run tasks until the pipe is closed; ``parent`` is the process id of its other end, with which this one dies."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(STOP, _stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {STOP})
    plugins.load_all()  # before the first task, whose arguments may be of their classes
    while True:
        try:
            message = connection.recv()
        except EOFError:
            return
        function, arguments, log = message
        with _output_to(Path(log)):
            answer = _run(connection, function, arguments)
        connection.send(answer)


def die_with(parent: int) -> None:
    """Have the kernel kill this process at once when the thread that started it is gone (Linux).

    Elsewhere the worker ends when it next tells of its progress, or asks for work.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # gone before the call
        os._exit(1)


def _run(connection: Connection, function: str, arguments: tuple[Any, ...]) -> tuple[str, Any, Any]:
    start = time.monotonic()
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last >= REPORT_EVERY:
            last = now
            connection.send(("progress", done, total))

    try:
        module, name = function.split(":")
        result = getattr(importlib.import_module(module), name)(*arguments, report)
    except Exception as error:
        kind = kind_of(error)
        if kind not in QUIET:
            when = time.strftime("%Y-%m-%d %H:%M:%S")
            text = f"{when}, process {os.getpid()} on {os.uname().nodename}:\n{traceback.format_exc()}"
            with suppress(OSError):
                print(text, file=sys.stderr)
        return "failed", f"{type(error).__name__}: {error}", kind
    return "done", result, time.monotonic() - start


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send this process's output, C libraries' included, to a file."""
    saved = os.dup(1), os.dup(2)
    with path.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # a full disk: the log is cut, the answer is not
                stream.flush()
        for descriptor, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


_stopping = False


def stopping() -> bool:
    """Whether this worker was asked to stop."""
    return _stopping


def _stop(signum: int, frame: object) -> None:
    global _stopping
    _stopping = True


def _exit(signum: int, frame: object) -> NoReturn:
    raise SystemExit(128 + signum)  # unwinds, so that a half-built stage is removed
