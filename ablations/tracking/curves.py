"""A cell's metrics by step: from its tables once it is complete, and live while its optimization runs.

For live curves, the worker appends each row that its judges measured to ``progress/<stage>.jsonl``, and the parent reads that
file every few seconds and logs the new rows to MLflow. Live curves are optional: the complete record contains every point.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablations.tracking.records import (
    CURVES_FILE,
    EVALUATION,
    KL_AXIS,
    KL_STEP,
    LISTENERS,
    METRICS,
    POINTS_FILE,
    TEST_POINTS_FILE,
    TRAIN,
    added,
    read_table,
)

TABLES = {CURVES_FILE: TRAIN, POINTS_FILE: EVALUATION, TEST_POINTS_FILE: EVALUATION}
"""Table with one row per step -> prefix of the metrics made from its columns."""
PERIOD = 5.0
"""Seconds between checks for new points."""
Point = tuple[str, float, int]
"""(metric, value, step)."""


def points(rows: Iterable[Mapping[Any, Any]], prefix: str, metrics: Container[str] = METRICS) -> list[Point]:
    """Return the ``metrics`` in the rows of a table, without training steps that no judge measured."""
    found: list[Point] = []
    for row in rows:
        values = {f"{prefix}{name}": value for name, value in row.items()}
        if prefix == TRAIN:
            kl = values.get(f"{TRAIN}kl_token", math.nan)
            if not math.isfinite(kl):
                continue
            values[KL_AXIS] = round(KL_STEP * round(kl / KL_STEP), 6)
        measured = {name: float(value) for name, value in values.items() if name in metrics}
        found += [(name, value, int(row["step"])) for name, value in measured.items() if math.isfinite(value)]
    return found


def stored(folder: Path) -> list[Point]:
    """Return the points of all tables among a cell's artifacts, including the accuracies by plugin judges."""
    judges = [name for name in added(folder) if name not in LISTENERS]
    tables = TABLES | {f"{judge}_{POINTS_FILE}": EVALUATION for judge in judges}
    metrics = {*METRICS, *(f"{EVALUATION}{judge}_accuracy" for judge in judges)}
    rows = {name: read_table(folder / name).to_dict("records") for name in tables}
    return [point for name, prefix in tables.items() for point in points(rows[name], prefix, metrics)]


def live_file(store: Path, stage_folder: str) -> Path:
    """Return the file to which the optimization with that stage folder writes its rows."""
    return store / "progress" / f"{stage_folder}.jsonl"


def writer(path: Path) -> Callable[[int, Mapping[str, float]], None]:
    """Return a callback for `rrpo.pipeline.stages.Context.on_measures` that writes rows to ``path``.

    The first row replaces an existing file, because a resumed optimization reports all its rows again.
    """
    mode = "w"

    def on_measures(step: int, row: Mapping[str, float]) -> None:
        nonlocal mode
        if new_points := points([{**row, "step": step}], TRAIN):
            with contextlib.suppress(OSError):  # a live curve must not make the build fail
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open(mode, encoding="utf-8") as file:
                    file.write(json.dumps(new_points) + "\n")
                mode = "a"

    return on_measures


@dataclass
class Follower:
    """Reads new lines from the live files of running stages."""

    store: Path
    """The runs folder."""
    _read: dict[str, int] = field(default_factory=dict)
    """Stage folder -> number of lines that were read."""
    _due: float = 0.0

    def due(self) -> bool:
        """Return whether `PERIOD` seconds have passed since the last True."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + PERIOD
        return True

    def new(self, stage_folder: str) -> list[Point]:
        """Return the points of a stage that were not read before; incomplete lines are left for the next call.

        A resumed stage writes its rows again from the first one; those that were read before are not returned again.
        """
        try:
            lines = live_file(self.store, stage_folder).read_text(encoding="utf-8").splitlines(keepends=True)
        except OSError:
            return []
        start, complete = self._read.get(stage_folder, 0), [line for line in lines if line.endswith("\n")]
        self._read[stage_folder] = max(start, len(complete))
        found: list[Point] = []
        for line in complete[start:]:
            with contextlib.suppress(json.JSONDecodeError):  # a full disk took a part of a line
                found += [tuple(point) for point in json.loads(line)]
        return found
