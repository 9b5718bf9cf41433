"""Kinds of failure: whether a task is retried, and whether the next start of the same command runs it again."""

from __future__ import annotations

from dataclasses import dataclass

from rrpo.pipeline.errors import ClaimedError, Interrupted, failure_kind

UNLIMITED = 1_000_000
"""Retries of what only waits for something."""


@dataclass(frozen=True)
class Kind:
    """One kind of failure."""

    meaning: str
    """For people."""
    again: bool
    """Whether the next start runs the cell again by itself."""
    retries: int = 0
    """How often the same invocation tries again."""
    pause: float = 0.0
    """Seconds before it does."""


KINDS: dict[str, Kind] = {
    "diverged": Kind("non-finite loss or reward; the same seed would diverge again: counted, not retried", False),
    "bug": Kind("an error in code or data; run again only by --retry failed", False),
    "oom": Kind("out of memory; tried once more with smaller micro-batches, same mathematics", True, 1),
    "killed": Kind("the worker died or was preempted; goes on from its checkpoint", True, 3),
    "disk": Kind("the disk is full; the run pauses until there is room", True, UNLIMITED),
    "claimed": Kind("another live process is at work on it; asked again until it is done", True, UNLIMITED, 1.0),
    "stopped": Kind("stopped on request, with a checkpoint", True),
}
"""By name; the first four and ``disk`` may stand in the tag `records.TAG_FAILURE_KIND`."""


def kind_of(error: BaseException) -> str:
    """A key of `KINDS`."""
    if isinstance(error, ClaimedError):
        return "claimed"
    if "database or disk is full" in str(error):  # sqlite's, through whatever library
        return "disk"
    return "stopped" if isinstance(error, Interrupted) else failure_kind(error)


@dataclass(frozen=True)
class Lost:
    """Why a cell has no result."""

    kind: str
    """A key of `KINDS`; that of a record without one is ``bug``."""
    reason: str
    """One line."""

    @property
    def again(self) -> bool:
        """Whether the next start runs it again by itself."""
        return KINDS[self.kind].again

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"
