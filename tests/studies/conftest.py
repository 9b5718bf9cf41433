"""Make the helpers of this folder, and the browser of ``tests/reports``, importable from its tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "reports")]


@pytest.fixture(autouse=True)
def _stores(stores_copied: None) -> None:
    """No test of a study looks at the creation of a store."""
