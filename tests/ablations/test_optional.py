"""Results of optional packages: added to complete records, no part of a cell's identity."""

from __future__ import annotations

from pathlib import Path

import fakes
import pytest
from fixtures import Run

from ablations.execution import plan
from ablations.execution.estimate import Estimator
from ablations.execution.request import Request
from ablations.tracking.outbox import Entry, new_key
from ablations.tracking.reader import Store
from ablations.tracking.runs_folder import check
from rrpo.experiment.cell import Cell


def planned(cells: list[Cell], runs: Path) -> str:
    request = Request(grid="tiny", cells=tuple(cells), device="cpu", workers=1, folder=check(runs))
    return "\n".join(plan.make(request).lines(Estimator(runs)))


def test_a_package_that_comes_later_adds_its_results_to_the_same_runs(runs: Path, run: Run) -> None:
    plain = fakes.cells(["diffro", "rrpo"], [1])
    run(plain)
    built = fakes.built(runs)
    before = Store(check(runs)).states("tiny")[0]
    assert all(not record.optional for record in before.values())
    assert "optional results" not in planned(plain, runs)

    with_listener = fakes.cells(["diffro", "rrpo"], [1], listener="voice")
    assert [cell.hash for cell in with_listener] == [cell.hash for cell in plain], (
        "packages are not part of a cell's identity"
    )
    assert "0 to run; optional results to add to 2 that are done" in planned(with_listener, runs)
    outcome, _ = run(with_listener)
    assert (outcome.status, outcome.done) == (0, 2)
    assert sorted(set(fakes.built(runs)) - set(built)) == ["voice diffro 1", "voice rrpo 1"], "nothing else is built"

    after = Store(check(runs)).states("tiny")[0]
    for key, record in after.items():
        assert record.run_id == before[key].run_id
        assert record.optional == {"voice"}
        assert record.scalars["end_voice"] == pytest.approx(0.51)
        assert {name: record.scalars[name] for name in before[key].scalars} == dict(before[key].scalars)
        assert (record.folder / "voice.parquet").is_file()
    assert "optional results" not in planned(with_listener, runs), "nothing is left to add"
    assert "optional results" not in planned(plain, runs), "existing results remain if the package is not installed"

    run(fakes.cells(["diffro"], [1], listener="naturalness"))
    record = next(r for r in Store(check(runs)).records("tiny") if r.label == "diffro")
    assert record.optional == {"voice", "naturalness"}


def test_new_cells_get_them_at_once(runs: Path, run: Run) -> None:
    cells = fakes.cells(["diffro"], [1, 2], listener="voice")
    outcome, _ = run(cells)
    assert (outcome.status, outcome.done) == (0, 2)
    assert {r.seed: r.scalars["end_voice"] for r in Store(check(runs)).records("tiny")} == pytest.approx(
        {1: 0.51, 2: 0.52}
    )


def test_one_that_fails_leaves_the_cell_complete_and_is_tried_again(runs: Path, run: Run, tmp_path: Path) -> None:
    trouble = tmp_path / "trouble"
    trouble.write_text("raise")
    cells = fakes.cells(["diffro"], [1], listener="voice,naturalness", listener_trouble=str(trouble))
    cells += fakes.cells(["rrpo"], [1])
    outcome, text = run(cells, workers=1, fail_fast=True)
    assert (outcome.status, outcome.done) == (0, 2), "no cell failed"
    assert "diffro/1, optional results voice: not added" in text

    def added() -> frozenset[str]:
        (diffro,) = (record for record in Store(check(runs)).records("tiny") if record.label == "diffro")
        return diffro.optional

    assert added() == {"naturalness"}, "the others are added"
    trouble.unlink()
    run(cells)
    assert added() == {"voice", "naturalness"}


def test_nothing_is_said_of_the_optional_results_of_a_cell_that_failed(runs: Path, run: Run, tmp_path: Path) -> None:
    trouble = tmp_path / "trouble"
    trouble.write_text("raise")
    outcome, text = run(fakes.cells(["diffro"], [1], {"diffro/1": trouble}, listener="voice"), workers=1)
    assert outcome.failures.keys() == {"diffro/1"}
    assert "not added" not in text


def test_an_addition_to_a_cell_that_is_not_recorded_waits(runs: Path, run: Run) -> None:
    run(fakes.cells(["diffro"], [1]))
    store = Store(check(runs))
    entry = Entry(
        key=new_key("optional"), experiment="tiny", name="x/1", tags={"optional": "voice"}, cell="none", adds=True
    )
    store.replay.outbox.put(entry)
    assert store.states("tiny")[0]
    assert "the cell that this adds to is not recorded" in store.replay.waiting()
