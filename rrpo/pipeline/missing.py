"""Find the stages that must be built for a result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rrpo.pipeline.stages import Stage, walk


def missing_below(roots: Sequence[Stage], store: Path) -> list[Stage]:
    """Return every distinct stage that must be built for ``roots``, inputs first; skip inputs that only finished stages read."""
    return list(walk(*roots, skip=lambda stage: stage.done(store)))
