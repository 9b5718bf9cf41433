"""The pages that the guide shows and what a researcher looks for in them: a real server, a real browser."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import fakes
import pytest
from browser import needs_browser
from PIL import Image
from stored import report, store_cells

from ablations.execution.failures import Lost
from ablations.execution.runs_folder import check
from ablations.grids import GRIDS, Grid
from ablations.tracking.recorder import Tracker
from rrpo.arms import RRPO
from studies import page

DOCS = Path(__file__).parents[2] / "docs"
ARMS = ["sft", "diffro", RRPO]
WIDTH = 150_000
"""Most bytes of a picture."""


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_browser
@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_page_shows_what_it_should_and_things_are_found(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("playwright")
    monkeypatch.setitem(
        GRIDS._items, "tiny", Grid(cells=lambda profile, seeds: fakes.cells(ARMS, seeds), profile="smoke")
    )
    store_cells(runs, fakes.cells(ARMS, [1, 2, 3]))
    assert report(runs, tmp_path / "out", "--grid", "tiny", "--format", "md").exit_code == 0
    (failed,) = fakes.cells(["diffro"], [4])
    Tracker(check(runs), "tiny", {}, {}).record_failure(failed, Lost("diverged", "loss nan"), "")
    folder = runs / "studies" / "s" / "report"
    folder.mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(folder / "importance.png")
    page.write("s", [], [folder / "importance.png"], "optuna-dashboard journal.log", folder)
    screenshots, things = script("screenshots"), script("ten_things")
    with screenshots.server(check(runs)) as address:
        shown = screenshots.take(check(runs), "tiny", tmp_path / "images", address)
        found = things.find(check(runs), "tiny", address)
    for name, words in {
        "mlflow-charts": ["Group: rrpo", "Against KL", "train/val_accuracy", "train/proxy_accuracy"],
        "mlflow-table": ["Group: rrpo", "clean_success", "end_kl_token"],
        "mlflow-samples": ["00_angry.wav"],
        "report": ["clean success", "verdict", "RRPO - DiffRO"],
        "report-listen": ["asked for", "angry"],
        "study": ["Study s", "What the value depends on", "optuna-dashboard journal.log"],
    }.items():
        assert all(word in shown[name] for word in words), (name, shown[name])
        assert 1_000 < (tmp_path / "images" / f"{name}.png").stat().st_size < WIDTH
    assert shown.keys() == {path.stem for path in (tmp_path / "images").iterdir()}
    assert [question for question, *_ in found] == [question for question, *_ in things.THINGS]
    assert max(clicks for *_, clicks, _ in found) <= 11
    assert "| MLflow | 0 |" in things.table(found)
