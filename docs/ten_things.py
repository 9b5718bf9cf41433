"""Count the clicks to ten things that a researcher looks for: ``python docs/ten_things.py --grid full --runs-dir runs``.

A real browser starts at ``report.html``, at a study's ``study.html`` or at the MLflow address that a run of the grid prints.
The seconds are the CPU time of browser and server together, which does not depend on what else the machine is doing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent))

import screenshots

from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import RunsFolder, check

REPORT, STUDY, MLFLOW = "report.html", "study.html", "MLflow"
SERVED = (
    "there => document.querySelectorAll('#cells a').forEach(a => { a.href = a.href.replace(/^[^#]+/, there + '/'); })"
)
"""Points the report's links to the server of this script, whose port differs from the printed one."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Something that a researcher looks for, and the shortest path to it."""

    question: str
    """Question that it answers."""
    start: str
    """Starting page."""
    clicks: tuple[str, ...] = ()
    """Selectors of the elements to click, in order; an ``audio`` element is played."""
    seen: str
    """Selector of the element that must then be visible."""


SAMPLE = (
    "nav a[href='#part-cells']",
    "#cells tr:has(th:text-is('rrpo')) td:nth-of-type(3) a",
    "text=/^Artifacts$/",
    "text=/^audio$/",
    "text=/_angry.wav$/",
    "audio",
)
"""The path from a report to a sample of the third seed, in MLflow."""
THINGS = (
    Thing(question="Which components help, by how much, with which verdict", start=REPORT, seen="#components"),
    Thing(
        question="Which cells failed, and why",
        start=REPORT,
        clicks=("nav a[href='#part-cells']",),
        seen="#failed",
    ),
    Thing(
        question="The difference that these seeds could have detected",
        start=REPORT,
        clicks=("nav a[href='#part-components']", "#section-effects ~ details summary"),
        seen="text=/^Detectable with power/",
    ),
    Thing(
        question="When over-optimization sets in",
        start=REPORT,
        clicks=("nav a[href='#part-overoptimisation']",),
        seen="#overoptimisation",
    ),
    Thing(
        question="An arm's own hyperparameters",
        start=REPORT,
        clicks=("nav a[href='#part-arms']",),
        seen="#ran_with",
    ),
    Thing(
        question="The commit, and the command that regenerates the report",
        start=REPORT,
        clicks=("nav a[href='#part-methods']",),
        seen="#provenance",
    ),
    Thing(
        question="The same prompt, spoken by every arm",
        start=REPORT,
        clicks=("nav a[href='#part-audio']", "table.audio button"),
        seen="table.audio button.playing",
    ),
    Thing(
        question="Play the third seed's angry sample of RRPO",
        start=REPORT,
        clicks=SAMPLE,
        seen="audio",
    ),
    Thing(
        question="Curves of the arms with the spread of their seeds", start=MLFLOW, seen=".js-plotly-plot .scatterlayer"
    ),
    Thing(question="The hyperparameters that a study's value depends on", start=STUDY, seen="img[alt=importance]"),
)


def find(folder: RunsFolder, grid: str, address: str) -> Iterator[tuple[Thing, float]]:
    """Yield every thing with the CPU seconds spent on the path to it; a study's things only if there is a study.

    Args:
        folder: Runs folder with the grid's cells, its report and a study's page.
        grid: Name of the grid.
        address: Address of an MLflow server on the folder's store, started by this process.
    """
    store = Store(folder)
    starts = {
        REPORT: screenshots.report_of(store, grid).as_uri(),
        MLFLOW: f"{address}{screenshots.charts(store, grid)}",
    }
    for study in (folder.root / "studies").glob(f"*/report/{STUDY}"):
        starts[STUDY] = study.as_uri()
    with screenshots.browser() as context:
        for thing in (thing for thing in THINGS if thing.start in starts):
            tab, before = context.new_page(), _seconds()
            tab.goto(starts[thing.start], wait_until="domcontentloaded")
            tab.evaluate(SERVED, address)
            for selector in thing.clicks:
                _click(tab, selector)
            tab.locator(thing.seen).first.wait_for()
            yield thing, sum(after - before.get(pid, 0.0) for pid, after in _seconds().items())
            tab.close()


def _click(tab: Any, selector: str) -> None:
    element = tab.locator(selector).first
    if selector == "audio":
        element.wait_for()
        element.evaluate("sound => { sound.muted = true; return sound.play(); }")
    else:
        element.click()


def _seconds() -> dict[int, float]:
    """Return process id -> CPU seconds of the running child processes: browser and server."""
    times = {process.pid: process.cpu_times() for process in psutil.Process().children(recursive=True)}
    return {pid: cpu.user + cpu.system for pid, cpu in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", required=True)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    args = parser.parse_args()
    folder = check(args.runs_dir)
    print("| what | from | clicks | CPU s |\n|---|---|---:|---:|")
    with screenshots.server(folder) as address:
        for thing, seconds in find(folder, args.grid, address):
            print(f"| {thing.question} | {thing.start} | {len(thing.clicks)} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
