"""The guide's screenshots, taken of a real server with a real browser."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import fakes
import pytest
from browser import needs_browser
from PIL import Image
from stored import ARMS, report, store_cells

from ablations.failures import Lost
from ablations.tracking import recorder
from ablations.tracking.recorder import Tracker
from ablations.tracking.runs_folder import RunsFolder, check
from studies import page

DOCS = Path(__file__).parents[2] / "docs"
LARGEST = 150_000
"""Maximum size of a screenshot, in bytes."""


@pytest.fixture
def folder(runs: Path, tmp_path: Path) -> RunsFolder:
    """Return a runs folder with a grid's cells, a failed cell, the report and a study's page."""
    pytest.importorskip("playwright")
    recorder.create(check(runs), "tiny", ARMS)
    store_cells(runs, fakes.cells(ARMS, [1, 2, 3]))
    tracker = Tracker(check(runs), "tiny", {}, {})
    tracker.start_invocation(fakes.cells(ARMS, [1, 2, 3, 4]), {})
    tracker.record_failure(fakes.cells(["rrpo"], [4])[0], Lost("oom", "out of memory"), "log")
    assert report(runs, tmp_path / "out", "--grid", "tiny", "--format", "md").exit_code == 0
    study = runs / "studies" / "s" / "report"
    study.mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(study / "importance.png")
    page.write("s", [], [study / "importance.png"], "optuna-dashboard journal.log", study)
    return check(runs)


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """Return the modules ``docs/screenshots.py`` and ``docs/ten_things.py``."""
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("screenshots"), importlib.import_module("ten_things")


@needs_browser
@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_page_shows_what_it_should(
    folder: RunsFolder, scripts: tuple[ModuleType, ModuleType], tmp_path: Path
) -> None:
    screenshots, _ = scripts
    with screenshots.server(folder) as address:
        shown = screenshots.take(folder, "tiny", tmp_path / "images", address)
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


@needs_browser
@pytest.mark.long
@pytest.mark.timeout(900)
def test_what_a_researcher_looks_for_is_found(folder: RunsFolder, scripts: tuple[ModuleType, ModuleType]) -> None:
    screenshots, ten_things = scripts
    with screenshots.server(folder) as address:
        questions = [thing.question for thing, _ in ten_things.find(folder, "tiny", address)]
    assert questions == [thing.question for thing in ten_things.THINGS]
    assert len(questions) == 10
