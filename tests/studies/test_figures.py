"""A study's figures are drawn from real trials, the response surface only where they cover the space."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import BROWSER, FLAGS, faults, needs_browser
from matplotlib import pyplot as plt
from PIL import Image
from searches import filled, search

from studies.figures import draw
from studies.page import write
from studies.results import best, sheets


@pytest.mark.parametrize(
    ("objectives", "sampler", "first", "last"),
    [
        (["clean_success"], "qmc", ["history", "importance", "surface"], ["slice"]),
        (["clean_success", "hacked_share"], "tpe", ["history", "importance"], ["pareto", "slice"]),
    ],
)
def test_figures_are_drawn_and_the_page_shows_them(
    tmp_path: Path, objectives: list[str], sampler: str, first: list[str], last: list[str]
):
    searched = search(tmp_path, *objectives, sampler=sampler)
    study = filled(searched, 12)
    drawn = draw(study, searched, tmp_path)
    names = {path.name for path in drawn}
    assert names == {f"{name}.{ending}" for name in first + last for ending in ("pdf", "png")}
    assert all((tmp_path / name).stat().st_size > 2000 for name in names)
    assert plt.rcParams["axes.facecolor"] == "white", "Optuna's style is not kept"
    pictures = [path for path in drawn if path.suffix == ".png"]
    page = write("s", sheets(study, searched), pictures, "optuna-dashboard <journal>", tmp_path).read_text()
    figures = [f'alt="{name}"' for name in first]
    tables = [f'<table id="{name}">' for name in ("best", "importance")]
    parts = [page.index(part) for part in [*figures, *tables, *(f'alt="{name}"' for name in last)]]
    assert parts == sorted(parts)
    assert "<code>optuna-dashboard &lt;journal&gt;</code>" in page
    assert 'src="http' not in page
    assert "<h1>Study s</h1>" in write("s", [], [], "", tmp_path).read_text(), "nothing to show yet"


@needs_browser
@pytest.mark.timeout(120)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault_on_the_page(tmp_path: Path, scheme: str):
    from playwright.sync_api import sync_playwright

    searched = search(tmp_path, "clean_success")
    study = filled(searched, 12)
    pictures = [tmp_path / f"{name}.png" for name in ("history", "importance", "slice")]
    for picture in pictures:
        Image.new("RGB", (20, 20)).save(picture)
    shown = best(study, searched)
    assert shown is not None
    page = write("s", [shown], pictures, "optuna-dashboard journal.log", tmp_path)
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=BROWSER, timeout=30_000, args=FLAGS)
        tab = browser.new_page(viewport={"width": 375, "height": 740}, color_scheme=scheme)
        tab.goto(page.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "only tables scroll sideways"
        assert faults(tab) == []
        browser.close()
