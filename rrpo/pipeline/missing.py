"""Which stages have to be built for a result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rrpo.pipeline.stages import Stage


def missing_below(wanted: Sequence[Stage], store: Path) -> list[Stage]:
    """Every distinct stage that is missing for ``wanted``, inputs first; what only finished stages read is not needed."""
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

    for root in wanted:
        visit(root)
    return list(missing.values())
