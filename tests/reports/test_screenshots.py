"""The guide's screenshots, taken of a real server with a real browser."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import fakes
import pytest
from browser import needs_browser
from PIL import Image
from stored import ARMS, report, store_cells

from ablations.execution.runs_folder import check
from ablations.tracking import recorder
from studies import page

SCRIPT = Path(__file__).parents[2] / "docs" / "screenshots.py"
LARGEST = 150_000
"""Maximum size of a screenshot, in bytes."""


@needs_browser
@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_page_shows_what_it_should(runs: Path, tmp_path: Path):
    pytest.importorskip("playwright")
    recorder.create(check(runs), "tiny", ARMS)
    store_cells(runs, fakes.cells(ARMS, [1, 2]))
    assert report(runs, tmp_path / "out", "--grid", "tiny", "--format", "md").exit_code == 0
    folder = runs / "studies" / "s" / "report"
    folder.mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(folder / "importance.png")
    page.write("s", [], [folder / "importance.png"], "optuna-dashboard journal.log", folder)
    spec = importlib.util.spec_from_file_location("screenshots", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    screenshots = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(screenshots)
    with screenshots.server(check(runs)) as address:
        shown = screenshots.take(check(runs), "tiny", tmp_path / "images", address)
    for name, words in {
        "mlflow-charts": ["Group: rrpo", "Against KL", "train/val_accuracy", "train/proxy_accuracy"],
        "mlflow-table": ["Group: rrpo", "clean_success", "end_test_accuracy"],
        "mlflow-samples": ["00_angry.wav"],
        "report": ["clean success", "verdict", "RRPO - DiffRO"],
        "report-listen": ["target", "angry"],
        "study": ["Study s", "What the value depends on", "optuna-dashboard journal.log"],
    }.items():
        assert all(word in shown[name] for word in words), (name, shown[name])
        assert 1_000 < (tmp_path / "images" / f"{name}.png").stat().st_size < LARGEST
    assert shown.keys() == {path.stem for path in (tmp_path / "images").iterdir()}
