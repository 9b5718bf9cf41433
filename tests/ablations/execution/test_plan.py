"""The power analysis in a plan: for the total number of planned seeds, at the level of the whole grid's family."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest
from fixtures import Run

from ablations.components import factorial
from ablations.execution import plan
from ablations.execution.options import Options
from ablations.execution.request import Request
from ablations.execution.request import request as make_request
from ablations.failures import Lost
from ablations.tracking import recorder
from ablations.tracking.recorder import Tracker
from ablations.tracking.runs_folder import check
from rrpo.pipeline.claims import Claims


def request(runs: Path, seeds: range, arms: list[str], declared: tuple[str, ...] = ()) -> Request:
    cells = tuple(fakes.cells(arms, seeds))
    return Request(grid="tiny", cells=cells, device="cpu", workers=1, folder=check(runs), declared=declared)


def invoked(request: Request) -> None:
    """Record the request's invocation, as running it would."""
    recorder.create(request.folder, request.grid)
    below = Tracker(request.folder, request.grid, {}, {}).start_invocation(request.cells, {})
    below.end_invocation("FINISHED")


@pytest.mark.parametrize(
    ("seeds", "n"),
    [(range(1, 9), 8), (range(6, 9), 8), (range(1, 6), 5), (range(1000, 1003), 3)],
    ids=["eight in all", "three more", "five again", "development seeds"],
)
def test_a_plan_counts_the_seeds_planned_before(runs: Path, seeds: range, n: int):
    invoked(request(runs, range(1, 6), factorial()))
    assert f"with {n} seeds" in plan.make(request(runs, seeds, factorial())).power_analysis()[-1]


def test_a_part_of_the_grid_is_planned_at_the_level_of_the_whole(runs: Path):
    part = request(runs, range(1, 4), ["diffro", "rrpo"], tuple(factorial()))
    first, last = plan.make(part).power_analysis()
    assert "each interval 0.9929" in first
    assert "with 3 seeds" in last


def test_a_plan_tells_where_nothing_is_tested_and_where_the_pilot_does_not_apply(tmp_path: Path) -> None:
    def power_analysis(**options: Any) -> list[str]:
        return plan.make(
            make_request(Options(runs_dir=tmp_path / "runs", device="cpu", workers=1, **options))
        ).power_analysis()

    assert power_analysis(grid="baselines") == ["a screen: estimates and intervals, nothing is tested"]
    assert power_analysis(grid="rm", seeds=2)[0].startswith("reward models alone")
    *_, line, parts = power_analysis(grid="full")
    assert line.startswith("with 16 seeds, the smallest difference")
    assert "the pilot's 8 development seeds" in line
    assert parts.startswith("standard deviations due to redrawing one thing alone, in points: data 4.2 (80 %")
    for other in ({"profile": "quick"}, {"world_seed": 1}, {"settings": ["optimize.beta=0.01"]}):
        assert power_analysis(grid="full", **other)[-1].startswith("no pilot of this profile and world")


def test_a_plan_says_why_each_cell_runs(runs: Path, run: Run, tmp_path: Path) -> None:
    """Of five cells one is done, one has another config, one older code, one failed and one is built by another process."""
    old = fakes.cells(["done", "config", "code"], [1])
    run(old, workers=1)
    config = replace(old[1], profile=replace(old[1].profile, optimize=replace(old[1].profile.optimize, beta=0.5)))
    code = replace(old[2], trouble="x")  # type: ignore[call-arg] - another key, the same params
    failed, busy = fakes.cells(["failed", "busy"], [1])
    cells = [old[0], replace(config, trouble="x"), code, failed, busy]  # type: ignore[call-arg]
    tracker = Tracker(check(runs), "tiny", {}, {}).start_invocation(cells, {})
    tracker.record_failure(failed, Lost("bug", "ValueError: x"), "")
    tracker.end_invocation("FAILED")
    assert Claims(check(runs).claims).take(busy.stages["optimized"].path(runs).name)

    def states(**options: bool) -> list[str]:
        asked = Request(grid="tiny", cells=tuple(cells), device="cpu", workers=1, folder=check(runs), **options)
        return list(plan.make(asked).states().values())

    done, changed, older, lost, built = states()
    assert done == "done"
    assert changed == "stale: the config changed: profile.optimize.beta 0.001 -> 0.5"
    assert older == "stale: the code of a stage changed (its version in rrpo/pipeline/versions.py)"
    assert lost == "failed, bug: ValueError: x (not run again without --retry failed)"
    assert built.startswith(f"at work: process {os.getpid()}")
    assert states(retry_failed=True)[3] == "failed, bug: ValueError: x (run again)"
