"""How a build may end without a result, and of which kind an error is. No torch: the parent of the workers asks too."""

from __future__ import annotations

import errno
import re
from typing import Literal


class DivergedError(FloatingPointError):
    """A loss, a reward or a gradient left the finite numbers; the update that would have used it was not made."""


class ClaimedError(RuntimeError):
    """Another live process builds this stage, and the caller did not want to wait."""


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """The build ended because `Context.stop` asked for it; its checkpoint is kept, and the next build goes on from there."""


FailureKind = Literal["diverged", "oom", "disk", "bug"]
OOM_TEXT = re.compile("out of memory|can.?not allocate memory|can't allocate memory|_alloc_failed", re.IGNORECASE)
"""Of CUDA, its libraries, and torch's CPU allocator, which has no error class of its own."""
DISK_TEXT = re.compile(
    r"no space left|quota exceeded|\d+ requested and \d+ written|iostream error|unexpected pos \d+ vs|^System error\.$",
    re.IGNORECASE,
)
"""Of a full disk where the writer drops the error number: numpy's ``tofile``, torch's archives (two texts), libsndfile."""


def failure_kind(error: BaseException) -> FailureKind:
    """What became of a build, by its error or the first of those that caused it which tells.

    ``diverged``: never to be retried with the same seed. ``oom``: once more with fewer samples a forward. ``disk``: full; to
    be retried once there is room. ``bug``: anything else. Not for `Interrupted`, which is no failure.
    """
    seen: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in seen:
        seen.append(following)
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
    return next((kind for kind in map(_kind_alone, seen) if kind != "bug"), "bug")


def _kind_alone(error: BaseException) -> FailureKind:
    number = error.errno if isinstance(error, OSError) else None
    text = str(error) if isinstance(error, (OSError, RuntimeError)) else ""
    if isinstance(error, DivergedError):
        return "diverged"
    if number in (errno.ENOSPC, errno.EDQUOT) or DISK_TEXT.search(text):
        return "disk"
    if isinstance(error, MemoryError) or number == errno.ENOMEM or OOM_TEXT.search(text):
        return "oom"
    return "bug"
