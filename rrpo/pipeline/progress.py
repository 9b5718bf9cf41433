"""Progress of the builds in a store: each build writes a note every few seconds, which other processes can read."""

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
    """Progress that a build has reported."""

    done: int
    total: int
    started: float
    """Seconds since 1970."""


def progress_file(store: Path, name: str) -> Path:
    """Return the path of the progress note of the stage with folder ``name``."""
    return store / "progress" / f"{name}.json"


def progress_of(store: Path, name: str) -> Progress | None:
    """Return the last note of the stage with folder ``name``, or None if it is not being built."""
    try:
        return Progress(*json.loads(progress_file(store, name).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def with_progress_file(report: Callable[[int, int], None], path: Path) -> Callable[[int, int], None]:
    """Wrap ``report`` so that it also writes a note for `progress_of` every few seconds."""
    started, last = time.time(), 0.0

    def report_and_write(done: int, total: int) -> None:
        nonlocal last
        report(done, total)
        if time.monotonic() - last >= NOTED:
            last = time.monotonic()
            with contextlib.suppress(OSError):  # failing to write a note must not fail the build
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps([done, total, started]))

    return report_and_write
