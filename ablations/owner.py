"""Which process owns something that was written down, and whether that process still lives.

A process is known by host, boot, process id and the moment it started: an id alone is soon given to another process, and
after a reboot to any.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PREFIX = "owner_"
"""Of the four tags."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Identity of one process."""

    host: str
    """Name of the machine."""
    boot: str
    """Identity of the machine's current boot; empty where the system tells none."""
    pid: int
    """Process id."""
    started: str
    """When the process started, in the system's own count."""

    def tags(self) -> dict[str, str]:
        """As tags of a run; `from_tags` reads them."""
        return {f"{PREFIX}{name}": str(value) for name, value in vars(self).items()}

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def from_tags(tags: Mapping[str, str]) -> Owner | None:
    """The owner that a run's tags name, None where they name none."""
    try:
        return Owner(
            host=tags[f"{PREFIX}host"],
            boot=tags[f"{PREFIX}boot"],
            pid=int(tags[f"{PREFIX}pid"]),
            started=tags[f"{PREFIX}started"],
        )
    except (KeyError, ValueError):
        return None


def this() -> Owner:
    """This process."""
    return _of(os.getpid())


@cache
def _of(pid: int) -> Owner:
    return Owner(host=socket.gethostname(), boot=_boot(), pid=pid, started=_started(pid) or "")


def alive(owner: Owner) -> bool | None:
    """Whether the owner still runs; None where this machine cannot know, since the owner is on another."""
    if owner.host != socket.gethostname():
        return None
    return owner.boot == _boot() and owner.started == _started(owner.pid)


def _boot() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.is_file() else ""


def _started(pid: int) -> str | None:
    """The start of a process, None when it has ended (a zombie has). Clock changes do not move what Linux counts."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        stat = Path(f"/proc/{pid}/stat")
        if stat.is_file():
            return stat.read_text().rpartition(")")[2].split()[19]  # field 22, in ticks since boot
        return f"{process.create_time():.2f}"
    except (psutil.NoSuchProcess, OSError):
        return None
