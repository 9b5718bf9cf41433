"""Ten things that a researcher wants to find, found by a real browser: ``python docs/ten_things.py --grid full --runs-dir runs``.

Starts at ``report.html``, a study's ``study.html`` or the address that a run of the grid prints, and counts what a person does
from there. Writes the table into `PAGE`, between its markers; ``--print`` prints it instead.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import screenshots

from ablations.execution.runs_folder import RunsFolder, check
from ablations.tracking.reader import Store

PAGE = Path(__file__).with_name("reports.md")
BEGIN, END = "<!-- things -->", "<!-- /things -->"
SERVED = (
    "there => document.querySelectorAll('#cells a').forEach(a => { a.href = a.href.replace(/^[^#]+/, there + '/'); })"
)
"""Has the report's links lead to the server that answers."""


@dataclass
class Hand:
    """Does in a tab what a person would do, and counts it."""

    tab: Any
    clicks: int = 0

    def click(self, what: str) -> None:
        """Click on what a selector finds first, once it is there."""
        self.tab.locator(what).first.click()
        self.clicks += 1

    def sees(self, what: str) -> None:
        """Wait until it is there and shown."""
        found = self.tab.locator(what).first
        found.wait_for()
        found.scroll_into_view_if_needed()

    def plays(self) -> None:
        """Play what an artifact's page shows."""
        self.sees("audio")
        self.tab.locator("audio").first.evaluate("sound => { sound.muted = true; return sound.play(); }")
        self.clicks += 1

    def finds(self, words: str) -> None:
        """Search the runs of an experiment."""
        field = self.tab.locator("input[placeholder*='metrics.rmse']")
        field.click()
        field.fill(words)
        field.press("Enter")
        self.clicks += 1


def unfold(part: str, wanted: str) -> Callable[[Hand], None]:
    """Follow the page's own contents to a section, and see something in it."""

    def go(hand: Hand) -> None:
        hand.click(f"nav a[href='#part-{part}']")
        hand.sees(wanted)

    return go


def _side_by_side(hand: Hand) -> None:
    """From the report's table of cells to both samples, one after the other."""
    start = hand.tab.url
    hand.click("nav a[href='#part-cells']")
    for arm in ("rrpo", "diffro"):
        hand.click(f"#cells tr:has(th:text-is('{arm}')) td:nth-child(4) a")
        hand.click("[role=tab]:has-text('Artifacts'), a:has-text('Artifacts')")
        hand.click("text=/^audio$/")
        hand.click("text=/_angry.wav$/")
        hand.plays()
        if arm == "rrpo":
            address = re.match(r"[^#]+", hand.tab.url)[0].rstrip("/")  # type: ignore[index]
            hand.tab.goto(start)
            hand.tab.evaluate(SERVED, address)
            hand.click("nav a[href='#part-cells']")


def _failures(hand: Hand) -> None:
    hand.finds("tags.failure_kind LIKE '%'")
    hand.sees("text=/^1 matching run/")
    hand.click("[row-index='0'] button[class*='expander'], [row-index='0'] svg")
    hand.click("a[href*='/runs/']:has-text('/')")
    hand.sees("text=/loss|Error|died|nan/")


REPORT, STUDY, MLFLOW = "`report.html`", "`study.html`", "MLflow"
THINGS: tuple[tuple[str, str, Callable[[Hand], None]], ...] = (
    ("Which component, by how much, is it real?", REPORT, lambda hand: hand.sees("#components")),
    ("Gold and proxy against KL", REPORT, lambda hand: hand.sees("svg.chart .mean")),
    ("How many seeds would decide it?", REPORT, lambda hand: hand.sees("#components th:has-text('verdict')")),
    ("When hacking sets in", REPORT, unfold("overoptimisation", "#overoptimisation")),
    ("An arm's effective epsilon", REPORT, unfold("arms", "#ran_with")),
    ("Which commit made it, and how to regenerate the table", REPORT, unfold("methods", "#provenance")),
    ("Play the third seed's angry sample of RRPO, then DiffRO's", REPORT, _side_by_side),
    (
        "Arms' curves with their spread while they run",
        MLFLOW,
        lambda hand: hand.sees(".js-plotly-plot"),
    ),
    ("Which cells failed, and why", MLFLOW, _failures),
    ("What Optuna holds important", STUDY, lambda hand: hand.sees("img[alt=importance]")),
)
"""Question, the page that it starts at, how it is found."""


def find(folder: RunsFolder, grid: str, address: str) -> list[tuple[str, str, int, float]]:
    """Each thing with its start, the clicks, and the seconds from asking for the page until it is there."""
    store = Store(folder)
    starts = {
        REPORT: screenshots.report_of(store, grid).as_uri(),
        MLFLOW: f"{address}{screenshots.charts(store, grid)}",
    }
    for study in sorted((folder.root / "studies").glob("*/report/study.html"))[:1]:
        starts[STUDY] = study.as_uri()
    found = []
    with screenshots.browser() as context:
        for question, start, go in THINGS:
            if start not in starts:
                continue
            hand, began = Hand(context.new_page()), time.monotonic()
            hand.tab.goto(starts[start], wait_until="domcontentloaded")
            hand.tab.evaluate(SERVED, address)
            go(hand)
            found.append((question, start, hand.clicks, time.monotonic() - began))
            hand.tab.close()
    return found


def table(found: list[tuple[str, str, int, float]]) -> str:
    """As Markdown."""
    rows = [f"| {question} | {start} | {clicks} | {seconds:.1f} |" for question, start, clicks, seconds in found]
    return "\n".join(["| what | from | clicks | seconds |", "|---|---|---:|---:|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", required=True)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--print", action="store_true", dest="printed")
    asked = parser.parse_args()
    folder = check(asked.runs_dir)
    with screenshots.server(folder) as address:
        made = table(find(folder, asked.grid, address))
    if asked.printed:
        print(made)
        return
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
