"""Store cells without workers and report on them, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import fakes
import pytest
from typer.testing import CliRunner, Result

from ablations.execution.jobs import record_cell
from ablations.grids import GRIDS, Grid
from ablations.tracking import recorder
from ablations.tracking.recorder import Tracker
from ablations.tracking.runs_folder import check
from reports.run import app
from rrpo.experiment.cell import Cell
from rrpo.pipeline.stages import Context, materialise

ARMS = ["sft", "diffro", "ls", "rrpo"]


@contextmanager
def tiny_grid(arms: Sequence[str] = ARMS) -> Iterator[None]:
    """Register a grid of fake cells of these arms under the name ``tiny``."""
    grid = Grid(cells=lambda profile, seeds: fakes.cells(arms, seeds), profile="smoke")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(GRIDS._items, "tiny", grid)
        yield


def store_cells(runs: Path, cells: list[Cell], grid: str = "tiny", tags: dict[str, str] | None = None) -> None:
    """Build and record cells in this process, which is quicker than starting workers."""
    folder = check(runs)
    recorder.create(folder, grid)
    tracker = Tracker(folder, grid, tags or {}, {})
    for cell in cells:
        for stage in cell.stages.values():
            materialise(stage, folder.root, Context())
        record_cell(cell, folder.root, tracker, lambda done, total: None)


def report(runs: Path, out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--runs-dir", str(runs), "--out", str(out), *arguments])
