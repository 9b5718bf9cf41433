"""How far the builds of a store are: a note that each leaves every few seconds, for whoever wants to know."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

NOTED = 2.0
"""Seconds between two notes of a build."""


class Progress(NamedTuple):
    """How far a build said it is."""

    done: int
    total: int
    started: float
    """Seconds since 1970."""


def progress_file(store: Path, name: str) -> Path:
    """Where the stage whose folder is ``name`` leaves its note."""
    return store / "progress" / f"{name}.json"


def progress_of(store: Path, name: str) -> Progress | None:
    """The last note of the stage whose folder is ``name``, while it is built."""
    try:
        return Progress(*json.loads(progress_file(store, name).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def noted(report: Callable[[int, int], None], path: Path) -> Callable[[int, int], None]:
    """``report``, and every few seconds a note for `progress_of`."""
    started, last = time.time(), 0.0

    def both(done: int, total: int) -> None:
        nonlocal last
        report(done, total)
        if time.monotonic() - last >= NOTED:
            last = time.monotonic()
            with contextlib.suppress(OSError):  # a note is worth no build
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps([done, total, started]))

    return both
