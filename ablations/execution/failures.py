"""Declare the kinds of failure: how often a task is retried, and whether the next run of the same command includes it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rrpo.pipeline.errors import ClaimedError, Interrupted, failure_kind

UNLIMITED = 1_000_000
"""Retries of a failure that only has to wait for something."""


@dataclass(frozen=True)
class Kind:
    """One kind of failure."""

    meaning: str
    """Readable explanation."""
    again: bool
    """Whether the next run of the command includes the cell again."""
    retries: int = 0
    """Maximum number of retries within one invocation."""
    pause: float = 0.0
    """Seconds before a retry."""


KINDS: dict[str, Kind] = {
    "diverged": Kind("non-finite loss or reward; the same seed would diverge again: counted, not retried", False),
    "bug": Kind("an error in code or data; run again only with --retry failed", False),
    "oom": Kind("out of memory; retried once with smaller micro-batches and the same mathematics", True, 1),
    "killed": Kind("the worker died or was preempted; resumes from its checkpoint", True, 3),
    "disk": Kind("the disk is full; the run pauses until space is free", True, UNLIMITED),
    "claimed": Kind("another live process is building it; retried until that process is done", True, UNLIMITED, 1.0),
    "stopped": Kind("stopped on request, with a checkpoint", True),
}
"""Name -> kind. The tag `records.TAG_FAILURE_KIND` holds one of the first four or ``disk``."""


def kind_of(error: BaseException) -> str:
    """Return the kind of an error, a key of `KINDS`."""
    if isinstance(error, ClaimedError):
        return "claimed"
    if "database or disk is full" in str(error):  # SQLite's message; libraries wrap it in their own error types
        return "disk"
    return "stopped" if isinstance(error, Interrupted) else failure_kind(error)


@dataclass(frozen=True)
class Lost:
    """Why a cell or a part of a task has no result."""

    kind: str
    """A key of `KINDS`; ``bug`` if the record does not name one."""
    reason: str
    """One line."""

    @staticmethod
    def of(error: BaseException) -> Lost:
        """Return the kind and text of an error."""
        return Lost(kind_of(error), f"{type(error).__name__}: {error}")

    @property
    def again(self) -> bool:
        """Whether the next run of the command includes the cell again."""
        return KINDS[self.kind].again

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


@dataclass(frozen=True)
class Failure(Lost):
    """Why a task has no result or has to be retried. The reason begins with the cause if that is another task."""

    log: Path
    """Log of the task that failed."""
    cause: str
    """Title of the task that failed; differs from the task's own title if one of its dependencies failed."""
