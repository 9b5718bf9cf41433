"""Find the stages that must be built for a result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rrpo.pipeline.stages import Stage


def missing_below(roots: Sequence[Stage], store: Path) -> list[Stage]:
    """Return every distinct stage that must be built for ``roots``, inputs first; skip inputs that only finished stages read."""
    missing: dict[str, Stage] = {}
    seen: set[str] = set()

    def visit(stage: Stage) -> None:
        if stage.key in seen:
            return
        seen.add(stage.key)
        if not stage.done(store):
            for child in stage.inputs.values():
                visit(child)
            missing[stage.key] = stage

    for root in roots:
        visit(root)
    return list(missing.values())
