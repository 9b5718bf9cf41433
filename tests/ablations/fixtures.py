"""Fixtures for the tests of `ablations` and `reports`: an empty runs folder without the time to create a store."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from ablations.execution import plan, runner
from ablations.execution.estimate import Estimator
from ablations.execution.request import Request
from ablations.execution.runner import Ending
from ablations.tracking import recorder
from ablations.tracking.runs_folder import check
from rrpo.experiment.cell import Cell

Run = Callable[..., tuple[Ending, str]]


@pytest.fixture(scope="session")
def template(for_all_processes: Path) -> Path:
    """A runs folder with an empty store, created once for all test processes."""
    shared = for_all_processes / "runs-template"
    with FileLock(f"{shared}.lock"):
        if not (shared / "rrpo-runs.json").exists():
            recorder.create(check(shared), "other")
    return shared


@pytest.fixture
def runs(template: Path, tmp_path: Path) -> Path:
    """A runs folder for one test. It is a copy, so every test exercises relocation."""
    return Path(shutil.copytree(template, tmp_path / "runs"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save an empty picture for every figure: drawing takes most of a report's time. `test_figures` looks at pictures."""

    def save(figure: Figure, path: Path, **options: Any) -> None:
        Image.new("RGB", (20, 10), "white").save(path)

    monkeypatch.setattr(Figure, "savefig", save)


@pytest.fixture
def run(runs: Path) -> Run:
    """`run_cells` in the test's runs folder."""
    return partial(run_cells, folder=runs)


def run_cells(
    cells: Sequence[Cell], grid: str = "tiny", workers: int = 1, *, folder: Path, **options: Any
) -> tuple[Ending, str]:
    """Plan and run cells on one real worker or more; return the outcome and the printed text."""
    request = Request(grid=grid, cells=tuple(cells), device="cpu", workers=workers, folder=check(folder), **options)
    text = StringIO()
    console = Console(file=text, width=200)
    return runner.run_plan(plan.make(request), Estimator(folder), console), text.getvalue()


def wait_until_started(process: subprocess.Popen[Any], trouble: Path) -> None:
    """Wait until a build with the trouble ``slow`` or ``deaf`` (`fakes.FakeConfig.trouble`) has started in a process."""
    deadline = time.monotonic() + 90
    while not Path(f"{trouble}.started").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail("the build did not start")
        time.sleep(0.05)
