"""No process stays behind: one that works for another ends with it, also if it is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Option of prctl(2): the signal to receive when the parent dies."""


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when the thread that started it ends (Linux only).

    Args:
        parent: Id of the process that started it.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the call to prctl
        os._exit(1)
