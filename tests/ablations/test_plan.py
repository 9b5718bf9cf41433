"""What a plan says of power: by the looks that the report will go by, and the spread of this world's own seeds."""

from __future__ import annotations

from pathlib import Path

import fakes
import pytest

from ablations import plan, tracking
from ablations.components import factorial
from ablations.records import PAIR_SPREAD
from ablations.request import Request
from ablations.runs_folder import check
from ablations.tracking import Tracker


def request(runs: Path, seeds: range, looks: tuple[int, ...] = (), **fields: object) -> Request:
    cells = tuple(fakes.cells(factorial(), seeds, **fields))  # type: ignore[arg-type]
    return Request(grid="tiny", cells=cells, device="cpu", workers=1, folder=check(runs), looks=looks)


def invoked(asked: Request, spread: float | None = None) -> None:
    """As a run of it would leave in the store."""
    tracking.create(asked.folder, asked.grid)
    params = {"looks": ",".join(map(str, asked.looks))} if asked.looks else {}
    below = Tracker(asked.folder, asked.grid, {}, {}).start_invocation(asked.cells, params)
    if spread is not None:
        below.set_metric(below.parent, PAIR_SPREAD, spread, 5)
    below.end(below.parent, "FINISHED")


@pytest.mark.parametrize(
    ("seeds", "level"),
    [(range(1, 9), "0.00921"), (range(6, 9), "0.00921"), (range(1, 6), "0.00329"), (range(1000, 1008), "0.0125")],
    ids=["eight in all", "three more", "five again", "development seeds"],
)
def test_a_plan_has_the_level_of_the_report_with_the_looks_declared_before(runs: Path, seeds: range, level: str):
    before = request(runs, range(1, 6), (5, 8))
    assert "at 0.00329, the strictest" in plan.make(before).prospects()[0]
    invoked(before)
    assert f"at {level}, the strictest" in plan.make(request(runs, seeds)).prospects()[0]


def test_the_spread_is_that_of_the_same_world(runs: Path):
    invoked(request(runs, range(1, 6)), spread=0.01)
    invoked(request(runs, range(1, 6), world="b"), spread=0.5)
    assert (
        "(spread 1.0 points, as in this grid's finished seeds)" in plan.make(request(runs, range(1, 6))).prospects()[0]
    )
    elsewhere = plan.make(request(runs, range(1, 6), world="c")).prospects()
    assert "as in a former grid of eight seeds" in elsewhere[0]
