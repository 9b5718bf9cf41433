"""A registered regularizer and an additional outcome appear in the plan, the effects and the whole page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fakes
import pytest
from stored import report, store_cells, tiny_grid

from ablations.components import factorial
from ablations.execution import plan
from ablations.execution.request import Request
from ablations.outcomes import OUTCOMES, Outcome
from ablations.tracking import recorder
from ablations.tracking.recorder import Tracker
from ablations.tracking.runs_folder import check
from reports.loading import select
from reports.report import make
from rrpo.experiment.cell import Cell
from rrpo.regularizers import REGULARIZERS, Regularizer, strength

SEEDS = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Fourth(Regularizer):
    """A regularizer that is not the paper's."""

    label = "X"
    size: float = strength(1.0, off=0.0, search=(0.0, 2.0))


@pytest.fixture
def extended(no_plugins: Callable[[], None]) -> Iterator[None]:
    """Add a fourth component, an outcome, and a grid of SFT, all sixteen arms and the oracle."""
    outcome = Outcome(
        name="distance", label="distance", read=lambda r: float(r.points["sqrt_kl"].iloc[-1]), unit="plain"
    )
    REGULARIZERS.register("x", Fourth())
    OUTCOMES.append(outcome)
    with tiny_grid(arms()):
        yield
    OUTCOMES.remove(outcome)


def arms() -> list[str]:
    return ["sft", *factorial(), "oracle"]


def cells(seeds: tuple[int, ...]) -> list[Cell]:
    return fakes.cells(arms(), seeds)


def stored(runs: Path) -> None:
    """Plan and record all cells of the grid."""
    recorder.create(check(runs), "tiny")
    Tracker(check(runs), "tiny", {}, {}).start_invocation(cells(SEEDS), {})
    store_cells(runs, cells(SEEDS))


def test_the_plan_tells_what_is_tested_and_what_else_is_read(extended: None, runs: Path):
    request = Request(grid="tiny", cells=tuple(cells(SEEDS)), device="cpu", workers=1, folder=check(runs))
    tested, *_ = plan.make(request).power_analysis()
    assert "(each interval 0.9944): LS, main effect" in tested, "1 - .05 / 9"
    assert "X, in RRPO; RRPO - DiffRO; estimates only: hacked share" in tested
    assert tested.endswith(", distance")


@pytest.mark.usefixtures("undrawn")
def test_both_appear_in_every_table_they_belong_to_and_on_the_page(extended: None, runs: Path, tmp_path: Path):
    stored(runs)
    result = report(runs, tmp_path / "out", "--grid", "tiny")
    assert result.exit_code == 0, result.output
    made = make(select(runs, "tiny"))
    sheets = {sheet.name: sheet for sheet in made.sheets}
    names = {sheet: [str(row[0]) for row in sheets[sheet].rows] for sheet in sheets}
    assert {"x", "ls_x", "rrpo", "rrpo_x"} <= set(names["table"])
    assert "distance" in {column.name for column in sheets["table"].columns}
    effects = sheets["effects"]
    assert effects.row("X, main effect")["family"] == "primary"
    assert effects.row("X, main effect")["verdict"] != "interim", "two seeds are the planned number"
    assert {"X, in RRPO", "LS x X", "LS x EAM x Adv x X"} <= set(names["effects"])
    assert (
        len(names["effects"]) == 4 + 4 + 1 + 1 + 11 + 1
    )  # main, in RRPO, RRPO - DiffRO and - SFT, interactions, oracle - DiffRO
    by_hand = [
        sum(
            (1 if "x" in cell.label.split("_") else -1) * distance(cell)
            for cell in cells((seed,))
            if cell.label not in ("sft", "oracle")
        )
        / 8
        for seed in SEEDS
    ]
    interval = sheets["outcomes"].row("X, main effect")["distance"]
    assert interval.mean == pytest.approx(sum(by_hand) / len(SEEDS))  # type: ignore[union-attr]
    assert {"DiffRO + X", "RRPO with X", "RRPO without LS"} <= set(names["ablation"])
    assert len(names["components"]) == 9 + 1
    assert re.search(r"of its components, .*\bX ", made.answer[0])
    assert f"n = {len(SEEDS)} seeds, intervals simultaneous over 9." in made.answer[0]
    assert "X, in RRPO; RRPO - DiffRO" in made.methods
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"forest.png", "seeds.png", "training.png"} <= files
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("X, main effect", "distance", "rrpo_x", "Arms shown: diffro, ls, eam, adv, x, rrpo, oracle."):
        assert words in page


def distance(cell: Cell) -> float:
    return float(fakes.curve(cell.label, cell.seed)["sqrt_kl"].iloc[-1])
