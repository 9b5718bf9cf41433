"""Declare the kinds of failure: how often a task is retried, and whether the next run of the same command includes it again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from rrpo.pipeline.errors import ClaimedError, Interrupted, failure_kind


@dataclass(frozen=True)
class Kind:
    """One kind of failure."""

    again: bool
    """Whether the next run of the command includes the cell again."""
    retries: float = 0
    """Maximum number of retries within one invocation."""
    pause: float = 0.0
    """Seconds before the first retry; each further one waits twice as long, up to `LONGEST`."""


KINDS: dict[str, Kind] = {
    "diverged": Kind(again=False),  # loss or reward is not finite: counted, because the same seed would diverge again
    "bug": Kind(again=False),  # an error in code or data; run again only with --retry failed
    "oom": Kind(again=True, retries=1),  # out of memory; retried with smaller micro-batches and the same mathematics
    "killed": Kind(again=True, retries=3),  # the worker died or was preempted; resumes from its checkpoint
    "disk": Kind(again=True, retries=math.inf),  # the disk is full; the run pauses until there is space
    "refused": Kind(again=True, retries=6, pause=10.0),  # a cluster did not accept the job
    "claimed": Kind(again=True, retries=math.inf, pause=1.0),  # another live process is building it
    "stopped": Kind(again=True),  # stopped on request, with a checkpoint
}
"""Name -> kind. The tag `records.TAG_FAILURE_KIND` holds one of the first six."""
LONGEST = 60.0
"""Maximum pause before a retry, in seconds."""


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
