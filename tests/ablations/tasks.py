"""Functions that workers of the scheduler's tests run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

Report = Callable[[int, int], None]


def note(path: str, word: str, report: Report) -> int:
    """Append a word to a file and answer with the process id."""
    report(1, 2)
    with Path(path).open("a") as file:
        file.write(word + "\n")
    print(f"noted {word}")
    return os.getpid()


def told_when_to_end(folder: str, report: Report) -> int:
    """Say how far it is, and go on to the end when it may; the process id."""
    (Path(folder) / "pid").write_text(str(os.getpid()))
    report(1, 3)
    deadline = time.monotonic() + 60
    while not (Path(folder) / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    print("at the end")
    return os.getpid()


def meet(folder: str, me: str, other: str, report: Report) -> bool:
    """True when the other task runs at the same time."""
    (Path(folder) / me).touch()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if (Path(folder) / other).exists():
            return True
        time.sleep(0.01)
    return False


def fail(report: Report) -> None:
    """Raise."""
    raise RuntimeError("planted failure")


def die(report: Report) -> None:
    """End the process as the kernel does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def leave(report: Report) -> None:
    """End the process with a status."""
    os._exit(7)


def sleep(folder: str, report: Report) -> None:
    """Say that it started, clean up when it is ended."""
    try:
        (Path(folder) / "pid").write_text(str(os.getpid()))
        (Path(folder) / "started").touch()
        time.sleep(60)
    finally:
        (Path(folder) / "cleaned").touch()


def environment(report: Report) -> tuple[str, bool]:
    """The thread limit, and whether torch came along."""
    import sys

    return os.environ["OMP_NUM_THREADS"], "torch" in sys.modules
