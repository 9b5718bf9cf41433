"""Make the helpers of ``tests/ablations`` and of this folder importable here and, through ``sys.path``, in spawned workers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / "ablations"), str(Path(__file__).parent)]

import fakes  # noqa: E402
from fixtures import run, runs, template  # noqa: E402, F401
from stored import ARMS  # noqa: E402

from ablations.grids import GRIDS, Grid  # noqa: E402


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a grid of fake cells under the name ``tiny``."""
    monkeypatch.setitem(
        GRIDS._items, "tiny", Grid(cells=lambda profile, seeds: fakes.cells(ARMS, seeds), profile="smoke")
    )
