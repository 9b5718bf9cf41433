"""The pages of MLflow that the guide shows, taken from a real server by a real browser."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import fakes
import pytest
from browser import needs_browser
from fixtures import Run
from stored import report

from ablations.execution.runs_folder import check

SCRIPT = Path(__file__).parents[2] / "docs" / "screenshots.py"


@needs_browser
@pytest.mark.long
def test_every_page_shows_what_it_should(runs: Path, run: Run, tmp_path: Path):
    """The script waits for what each page is about: charts, the column of the outcome, a player, the report's files."""
    pytest.importorskip("playwright")
    run(fakes.cells(["sft", "diffro", "rrpo"], [1, 2]))
    assert report(runs, tmp_path / "out", "--grid", "tiny", "--format", "md").exit_code == 0
    spec = importlib.util.spec_from_file_location("screenshots", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    screenshots = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(screenshots)
    written = screenshots.take(check(runs), "tiny", tmp_path / "images")
    assert [path.stem for path in written] == ["mlflow-charts", "mlflow-table", "mlflow-samples", "mlflow-report"]
    assert all(path.stat().st_size > 20_000 for path in written)
