"""From records with known effects to the first screen: the component that reduces hacking is named, and no other.

The first screen is the same on the terminal, in ``answer.md`` and on the page, and is the only part pasted into the README.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from stored import report
from synthetic import grid, record, shuffled

from ablations.components import COMPONENTS
from ablations.stats.contrasts import ABOVE_SFT
from ablations.tracking import recorder
from ablations.tracking.records import TAG_GRID, TAG_SHA
from ablations.tracking.runs_folder import check
from reports import run as reporting
from reports.loading import Selection

FirstScreen = Callable[[Selection], str]


@pytest.fixture
def first_screen(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FirstScreen:
    """Report on records in memory; return the text of ``answer.md``, after comparing it with the terminal and the page."""

    def stored(selection: Selection) -> str:
        with_folder = replace(selection, folder=check(runs))
        recorder.create(check(runs), "full")
        monkeypatch.setattr(reporting, "select", lambda *of, **how: with_folder)
        monkeypatch.setattr("reports.report._figures", lambda *of: ())
        result = report(runs, tmp_path / "out", "--grid", "full", "--format", "md")
        assert result.exit_code == 0, result.output
        text = (tmp_path / "out" / "answer.md").read_text()
        assert result.output.lstrip().startswith(text), "the terminal begins with it"
        page = (tmp_path / "out" / "report.html").read_text()
        screen = plain(page.partition('<section class="answer"')[2].partition("<details")[0])
        sentence, table = text.split("\n\n")[0], text.partition("\n| ")[2].partition("\n\n")[0]
        assert sentence in screen
        cells = [cell.strip() for line in table.splitlines()[2:] for cell in line.strip("| ").split("|")]
        place = screen.index("What each component does")
        for cell in cells:
            place = screen.index(cell, place)
        return text

    return stored


def plain(page: str) -> str:
    """Return a page's text."""
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", page)).split())


def verdicts(text: str) -> dict[str, str]:
    """Return contrast -> verdict from the first screen's table, without RRPO - SFT, which is not tested."""
    head, _, *rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    position = head.index("verdict")
    return {row[0]: row[position] for row in rows if row[0] != ABOVE_SFT}


full = partial(grid, make=partial(record, tags={TAG_GRID: "full", TAG_SHA: "0123456789"}))


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: component.name)
def test_the_component_that_cuts_hacking_by_ten_points_is_named(component, first_screen: FirstScreen) -> None:
    text = first_screen(full({component.name: 0.1}))
    sentence = text.split("\n\n")[0]
    assert sentence.startswith("RRPO reduces reward hacking: clean success is +")
    assert f"of its components, {component.label} helps (main effect +" in sentence
    assert sentence.count("helps") == 1
    by_name = verdicts(text)
    assert len(by_name) == 7
    assert {name for name, verdict in by_name.items() if verdict == "better"} == {
        "RRPO - DiffRO",
        *(name for name in by_name if name.startswith(f"{component.label}, ")),
    }
    assert set(by_name.values()) == {"better", "equivalent"}


def test_where_none_does_none_is_named(first_screen: FirstScreen) -> None:
    text = first_screen(full({}))
    assert text.startswith(
        "RRPO does not reduce reward hacking by 5 points or more: clean success differs from DiffRO's by "
    )
    assert "of its components, none is shown to help; LS, EAM, Adv equivalent" in text
    assert set(verdicts(text).values()) == {"equivalent"}


@pytest.mark.parametrize("seed", range(2))
def test_with_shuffled_labels_none_is_named(seed: int, first_screen: FirstScreen) -> None:
    """The cells in which a component helps by ten points, with arm names shuffled within every seed."""
    text = first_screen(shuffled(full({"ls": 0.1}), seed))
    assert "undecided: clean success differs" in text.split("\n\n")[0]
    assert "of its components, none is shown to help" in text
    assert "helps" not in text
    assert not [verdict for verdict in verdicts(text).values() if verdict.startswith(("better", "worse"))]


def test_the_first_screen_ends_with_what_made_it(first_screen: FirstScreen) -> None:
    last = first_screen(full({"ls": 0.1})).splitlines()[-1]
    assert "Seeds 0 to 7; code: commit 01234567; written by" in last
    assert last.endswith("`python -m reports.run --grid full --profile smoke --world w`.")
