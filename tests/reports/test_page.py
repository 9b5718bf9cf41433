"""The page in a real browser, from the file system: it renders, plays audio, logs nothing, and is usable by keyboard."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakes
import numpy as np
import pytest
import soundfile
from browser import BROWSER, FLAGS, faults, needs_browser
from stored import ARMS, store_cells

from ablations.rendering import card
from ablations.tracking import recorder
from ablations.tracking.recorder import Tracker
from ablations.tracking.records import EXPERIMENT_WORLD, TAG_WORLD_HASH
from ablations.tracking.runs_folder import check
from reports import explorer
from reports import page as report_page
from reports.loading import select
from reports.page import audio, cells, world_card, write
from reports.report import Figure, make
from rrpo.validation.lines import Line

PLAY = """a => new Promise(told => {
    a.muted = true;
    a.onended = () => told(a.duration);
    a.onerror = () => told(-1);
    a.play();
    setTimeout(() => told(-2), 15000);
})"""


MISSED = """[...document.querySelectorAll('table')].filter(t => {
    const box = t.closest('.scroll');
    return box && t.getBoundingClientRect().right > box.getBoundingClientRect().left + box.scrollWidth + 1;
}).length"""


FOLDED = "[...document.querySelectorAll('details')].at(-1).getBoundingClientRect().height"


@pytest.fixture
def page(reported: Path) -> Path:
    return reported / "out" / "report.html"


def test_the_card_of_the_records_world_is_a_table_and_no_other_is_shown(runs: Path, tmp_path: Path):
    store_cells(runs, fakes.cells(["diffro"], [1]))
    selection = select(runs, "tiny")
    recorder.create(check(runs), EXPERIMENT_WORLD)
    tracker = Tracker(check(runs), EXPERIMENT_WORLD, {}, {})
    measured = Line(section="Speech", name="heard", value=0.92, low=0.9, high=0.94, at_least=0.9, note="one | two")
    lines = [measured, Line(section="Speech", name="unmeasured")]
    for world, title in (("world-a", "Card of a"), ("world-b", "Card of b")):
        folder = tmp_path / world
        folder.mkdir()
        card.write(lines, title, folder)
        assert world_card(selection) == {} or world != "world-a"
        tracker.record("card", title, {TAG_WORLD_HASH: world}, {}, {}, {path.name: path for path in folder.iterdir()})
    shown = world_card(selection)
    assert "Card of a" in shown["table"]
    assert "one | two" in shown["table"]
    assert '<td class="text">0.900 .. 0.940</td>' in shown["table"]
    assert "world card: 1 of 1 pass" in shown["note"]
    text = write(selection, make(selection), [], tmp_path).read_text()
    names = re.findall(r'\bid="([^"]+)"', text)
    assert len(set(names)) == len(names), "an id is one element's"
    assert {address for address in re.findall(r'href="#([^"]+)"', text)} <= set(names)


def test_a_figure_in_place_of_the_chart_is_not_shown_again(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store_cells(runs, fakes.cells(["diffro"], [1]))
    selection = select(runs, "tiny")
    chart = explorer.data(selection) | {"arms": []}
    monkeypatch.setattr(explorer, "data", lambda plain: chart)
    figures = [Figure(name, f"Title of {name}", "What it shows.", lambda folder: []) for name in ("goodhart", "seeds")]
    for figure in figures:
        (tmp_path / f"{figure.name}.png").touch()
    text = write(selection, make(selection), figures, tmp_path).read_text()
    assert [text.count(f'alt="{figure.title}"') for figure in figures] == [1, 1]


def test_the_first_seed_that_has_audio_is_played(tmp_path: Path):
    """Restored cells have none."""
    records = [SimpleNamespace(label="rrpo", seed=seed, folder=tmp_path / str(seed)) for seed in (1, 2, 3)]
    for seed in (2, 3):
        folder = tmp_path / str(seed) / "audio"
        folder.mkdir(parents=True)
        soundfile.write(folder / "0000_happy.wav", np.sin(np.arange(8000) / 20), 16000)
    matrix = audio(records)  # type: ignore[arg-type]
    assert (matrix["seed"], [emotion for emotion, *_ in matrix["rows"]]) == (2, ["happy"])
    assert audio(records[:1])["rows"] == []  # type: ignore[arg-type]


def test_the_page_needs_no_other_file(page: Path):
    text = page.read_text()
    addresses = re.findall(r'(?:src|href)="([^"]+)"', text)
    outside = [a for a in addresses if not a.startswith(("data:", "#", "http://127.0.0.1"))]
    assert outside == []
    assert not re.search(r"\bnan\b", re.sub(r'"data:[^"]+"', "", text))
    for word in ("Answer", "Methods", "simultaneous over", "this store holds no world card", "simulated"):
        assert word.lower() in text.lower()


def reached(tab: Any, presses: int, until: str = "") -> set[str]:
    """Return the element types focused by this many presses of the tab key; stop at the wanted one."""
    names: set[str] = set()
    for _ in range(presses):
        tab.keyboard.press("Tab")
        names.add(tab.evaluate("document.activeElement.tagName"))
        if until in names:
            break
    return names


def test_every_table_has_its_place_on_the_page() -> None:
    """Not under *More*. The first table of a screen is shown with the answer; a comparison of grids has no page."""
    folder = Path(report_page.__file__).parent
    constructors = r'(?:Sheet(?:\.of)?|by_arm)\(\s*"(\w+)"'
    names = {name for path in folder.glob("*.py") for name in re.findall(constructors, path.read_text())}
    template = (folder / "page.html.j2").read_text()
    placed = set(re.findall(r'"(\w+)"', template[template.index("sections = [") : template.index("set more")]))
    assert {"components", "by_setting", "mixtures"} <= names
    assert names - placed == {"screen", "compare"}


@needs_browser
@pytest.mark.timeout(90)
def test_in_a_browser_it_renders_and_plays(page: Path):
    from playwright.sync_api import sync_playwright

    messages: list[str] = []
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=BROWSER, timeout=30_000, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.set_default_timeout(20_000)
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.goto(page.as_uri())
        assert tab.locator("table").count() >= 6
        broken = "() => [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
        assert tab.evaluate(broken) == 0
        sounds = tab.locator("audio")
        assert sounds.count() == len(ARMS)
        assert sounds.first.evaluate(PLAY) == pytest.approx(0.1, abs=0.02)
        assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "only tables scroll sideways"
        assert tab.evaluate(MISSED) == 0, "every cell can be scrolled to"
        assert tab.locator("#explorer .mean").count() == 4, "clean success and proxy of DiffRO and RRPO"
        tab.select_option("#explorer-outcome", "clean success, %")
        tab.check("#explorer label:has-text('sft') input, #explorer label:has-text('ls') input")
        assert tab.locator("#explorer .mean").count() == 3
        tab.locator("#explorer .target").last.hover()
        assert "seed 3" in tab.locator("#explorer .tip").inner_text()
        folded = tab.evaluate(FOLDED)
        tab.set_viewport_size({"width": 1030, "height": 720})  # A4 on its side within its margins
        tab.emulate_media(media="print")
        assert (
            tab.evaluate(
                "[...document.querySelectorAll('table')].filter(t => t.getBoundingClientRect().right > 1031).length"
            )
            == 0
        )
        assert tab.evaluate(FOLDED) > folded + 20, "what is folded on the screen is printed"
        tab.emulate_media(media="screen")
        tab.reload()
        assert {"A", "SELECT", "INPUT", "SUMMARY", "DIV"} <= reached(tab, 40)
        tab.locator("nav a[href='#part-audio']").click()
        tab.wait_for_function("document.querySelector('#part-audio').open")  # a link unfolds what it leads to
        assert "BUTTON" in reached(tab, 10, "BUTTON")
        tab.keyboard.press("ArrowRight")
        assert "diffro" in tab.evaluate("document.activeElement.getAttribute('aria-label')")
        tab.keyboard.press("Enter")
        tab.wait_for_function("document.activeElement.parentElement.querySelector('audio').played.length > 0")
        browser.close()
    assert messages == []


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(page: Path, scheme: str):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=BROWSER, timeout=30_000, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
        tab.goto(page.as_uri())
        assert faults(tab) == []
        browser.close()


@needs_browser
@pytest.mark.long
@pytest.mark.timeout(240)
def test_in_mlflows_own_pages_a_cells_audio_plays(runs: Path, free_port: Callable[[], int]):
    """The server is started with the command that a run prints."""
    from playwright.sync_api import sync_playwright

    store_cells(runs, fakes.cells(["rrpo"], [1]))
    selection = select(runs, "tiny")
    port = free_port()
    command = [*shlex.split(check(runs).ui_command()), "--port", str(port), "--workers", "1"]
    with (runs / "ui.log").open("wb") as log:
        ui = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=log, stderr=log, start_new_session=True, cwd=runs
        )
    ((_, ((_, address),)),) = cells(selection)["rows"]
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                assert ui.poll() is None, (runs / "ui.log").read_text()
                time.sleep(0.3)
        with sync_playwright() as player:
            browser = player.chromium.launch(executable_path=BROWSER, timeout=30_000, args=FLAGS)
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(re.sub(r":\d+/", f":{port}/", address, count=1) + "/artifacts/audio/00_angry.wav")
            sound = tab.locator("audio").first
            sound.wait_for(timeout=60_000)
            assert sound.evaluate(PLAY) == pytest.approx(0.1, abs=0.02)
            browser.close()
    finally:
        os.killpg(ui.pid, 15)
        ui.wait()
