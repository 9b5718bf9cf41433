"""Make the helpers of ``tests/ablations`` and of this folder importable here and, through ``sys.path``, in spawned workers."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / "ablations"), str(Path(__file__).parent)]

import fakes  # noqa: E402
from fixtures import run, runs, template, undrawn  # noqa: E402, F401
from stored import ARMS, report, store_cells, tiny_grid  # noqa: E402


@pytest.fixture(autouse=True)
def _tiny(stores_copied: None) -> Iterator[None]:
    with tiny_grid():
        yield


@pytest.fixture(scope="session")
def reported(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A folder with a runs folder of three seeds of `ARMS` and a report on it, ``out``. Copy what a test changes."""
    folder = tmp_path_factory.mktemp("reported")
    runs_folder = Path(shutil.copytree(template, folder / "runs"))
    with tiny_grid():
        store_cells(runs_folder, fakes.cells(ARMS, [1, 2, 3]))
        result = report(runs_folder, folder / "out", "--grid", "tiny")
    assert result.exit_code == 0, result.output
    return folder
