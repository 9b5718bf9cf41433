"""Errors that end a build, and their classification. Imports no torch, because the workers' parent process uses it too."""

from __future__ import annotations

import errno
import re
from typing import Literal


class DivergedError(FloatingPointError):
    """A loss, reward or gradient is not finite. Raised before the update that would use it."""


class ClaimedError(RuntimeError):
    """Another live process builds this stage, and the caller chose not to wait."""


class Interrupted(Exception):  # noqa: N818 - not an error: the build was stopped on request
    """`Context.stop` ended the build. Its checkpoint is kept, and the next build resumes from it."""


FailureKind = Literal["diverged", "oom", "disk", "bug"]
OOM_TEXT = re.compile("out of memory|can.?not allocate memory|can't allocate memory|_alloc_failed", re.IGNORECASE)
"""Messages of CUDA, its libraries, and torch's CPU allocator, which has no error class of its own."""
DISK_TEXT = re.compile(
    r"no space left|quota exceeded|\d+ requested and \d+ written|iostream error|unexpected pos \d+ vs|^System error\.$",
    re.IGNORECASE,
)
"""Messages of a full disk from writers that drop the error number: numpy's ``tofile``, torch's archives (two), libsndfile."""


def failure_kind(error: BaseException) -> FailureKind:
    """Classify a failed build by its error, or by the first classifiable error in the chain of causes.

    ``diverged``: do not retry with the same seed. ``oom``: retry once with fewer samples per forward. ``disk``: full; retry
    when there is space. ``bug``: anything else. Not for `Interrupted`, which is not a failure.
    """
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return next((kind for kind in map(_kind_of, seen) if kind != "bug"), "bug")


def _kind_of(error: BaseException) -> FailureKind:
    number = error.errno if isinstance(error, OSError) else None
    text = str(error) if isinstance(error, (OSError, RuntimeError)) else ""
    if isinstance(error, DivergedError):
        return "diverged"
    if number in (errno.ENOSPC, errno.EDQUOT) or DISK_TEXT.search(text):
        return "disk"
    if isinstance(error, MemoryError) or number == errno.ENOMEM or OOM_TEXT.search(text):
        return "oom"
    return "bug"
