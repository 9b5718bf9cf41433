"""A grid that was run in several worlds is answered in the installed one, with the range over all of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import fakes
import pytest
from stored import store_cells, tiny_grid
from synthetic import grid, record, with_unplanned_seeds

from ablations.tracking.recorder import Tracker
from ablations.tracking.records import Record
from ablations.tracking.runs_folder import check
from reports import effects, loading, worlds
from reports.loading import Elsewhere, Selection, select
from reports.words import answer
from rrpo.corpus.config import WorldConfig


def several(elsewhere: float) -> Selection:
    """Return a grid in which RRPO gains ten points, and two other worlds in which it gains ``elsewhere`` and twice that."""
    others = {}
    for number in (1, 2):
        arms = {"diffro": 0.5, "rrpo": 0.5 + number * elsewhere}
        others[f"world {number} (w{number})"] = Elsewhere(
            tuple(
                record(arm, seed, level + 0.01 * (seed + len(arm))) for arm, level in arms.items() for seed in range(3)
            )
        )
    return replace(grid({"ls": 0.10}), elsewhere=others)


def test_the_answer_has_the_range_over_worlds_and_each_has_a_row():
    selection = several(-0.04)
    sentence, *_ = answer(selection, effects.rows(selection))
    assert re.search(
        r"; in 3 worlds, RRPO - DiffRO is \+10\.6 ± 0\.\d \(8 seeds\), -6\.0 ± \S+ \(3 seeds\) and -10\.0 ± \S+ \(3 seeds\) "
        r"points \(unadjusted 95 % intervals\); n = 8",
        sentence,
    )
    table = worlds.sheet(selection)
    assert table is not None
    assert [row[0] for row in table.rows] == ["world  (w)", "world 1 (w1)", "world 2 (w2)"]
    assert table.row("world 1 (w1)")["clean_success"].mean == pytest.approx(-0.06)  # type: ignore[union-attr]
    assert [row[1] for row in table.rows] == [8.0, 3.0, 3.0]
    row = table.row("world 1 (w1)")
    assert row["diffro_clean_success"].mean == pytest.approx(0.5 + 0.06 + 0.01)  # type: ignore[union-attr]
    assert row["sft_clean_success"].n == 0  # type: ignore[union-attr]


def test_a_single_world_or_one_without_the_pair_has_no_range():
    alone = grid({"ls": 0.10})
    assert worlds.sheet(alone) is None
    assert "worlds" not in answer(alone, effects.rows(alone))[0]
    cells = Elsewhere((record("diffro", 1, 0.5), record("rrpo", 2, 0.5)))
    unpaired = replace(alone, elsewhere={"world 1 (w1)": cells})
    assert worlds.sheet(unpaired) is None
    assert worlds.span(unpaired) == ""


def test_diverged_cells_count_in_every_world():
    """One of eight RRPO cells here, and one of three in world 1, whose two others gain a point less."""
    selection = several(0.10)
    records = tuple(r for r in selection.records if (r.label, r.seed) != ("rrpo", 3))
    first = selection.elsewhere["world 1 (w1)"]
    short = tuple(r for r in first.records if (r.label, r.seed) != ("rrpo", 2))
    others = {"world 1 (w1)": Elsewhere(short, {("rrpo", 2): "diverged"})}
    selection = replace(selection, records=records, lost={("rrpo", 3): "diverged"}, elsewhere=others)
    table = worlds.sheet(selection)
    assert table is not None
    assert f"First world: {selection.counted}" in table.notes
    assert "Of world 1 (w1): 5 of 6 planned cells (1 diverged)." in table.notes
    own, other = (row[2] for row in table.rows)
    rows = {row.name: row for row in effects.rows(selection)}
    assert own.mean == pytest.approx(rows["RRPO - DiffRO"].interval.mean), (
        "the range contains the answer's own estimate"
    )
    assert other.mean == pytest.approx((0.08 + 0.08 - 0.58) / 3)
    assert [row[1] for row in table.rows] == ["7 to 8", "2 to 3"]
    first, second, *_ = answer(selection, effects.rows(selection))
    assert re.search(r"in 2 worlds, [^(]*\(8 seeds\) and [^(]*\(3 seeds\) points", first)
    assert re.search(r"in 2 worlds, [^(]*\(7 seeds\) and [^(]*\(2 seeds\) points", second)


def test_the_own_world_has_the_seeds_of_the_tests():
    selection = with_unplanned_seeds(several(-0.04))
    table = worlds.sheet(selection)
    assert table is not None
    own = table.row("world  (w)")
    overall = next(row.interval for row in effects.rows(selection) if row.name == "RRPO - DiffRO")
    assert own["clean_success"].mean == pytest.approx(overall.mean)  # type: ignore[union-attr]
    assert [row[1] for row in table.rows] == [8.0, 3.0, 3.0]
    assert own["diffro_clean_success"].n == own["rrpo_clean_success"].n == 8  # type: ignore[union-attr]


def test_half_an_interval_needs_two_seeds():
    selection = several(-0.04)
    name, world = next(iter(selection.elsewhere.items()))
    single = replace(world, records=tuple(r for r in world.records if r.seed == 0))
    selection = replace(selection, elsewhere={**selection.elsewhere, name: single})
    assert " ± 0.6 (8 seeds), -6.0 (1 seed) and -10.0 ± 0.0 (3 seeds) points" in worlds.span(selection)


def test_a_world_is_reported_apart_only_if_the_same_source_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The same source in another commit is the same code; development seeds are not compared with others."""
    other = replace(fakes.PROFILE, world=WorldConfig(seed=1))
    here, there = fakes.cells(["diffro", "rrpo"], [1]), fakes.cells(["diffro", "rrpo"], [1, 1000], world="b")
    with tiny_grid():
        store_cells(tmp_path, here, tags={"git_sha": "one"})
        store_cells(tmp_path, [replace(cell, profile=other) for cell in there], tags={"git_sha": "two"})
        (world,) = select(tmp_path, "tiny").elsewhere.values()
        assert keys(world.records) == [("diffro", 1), ("rrpo", 1)]
        monkeypatch.setattr(loading, "source_of", lambda record: record.world_hash)
        selection = select(tmp_path, "tiny")
        assert selection.elsewhere == {}
        assert "Not reported separately, because other code made it: world 1 (world-b)." in selection.notes


def test_the_installed_world_is_reported_and_the_others_are_kept_apart(tmp_path: Path):
    other = replace(fakes.PROFILE, world=WorldConfig(seed=1))
    here, there = fakes.cells(["diffro", "rrpo"], [1, 2]), fakes.cells(["diffro", "rrpo"], [1], world="b")
    with tiny_grid():
        store_cells(tmp_path, here)
        store_cells(tmp_path, [replace(cell, profile=other) for cell in there])
        selection = select(tmp_path, "tiny")
        assert {(r.world_hash, r.seed) for r in selection.records} == {("world-a", 1), ("world-a", 2)}
        assert keys(selection.elsewhere["world 1 (world-b)"].records) == [("diffro", 1), ("rrpo", 1)]
        assert "Reported separately: 2 cells of world 1 (world-b)." in selection.notes
        assert selection.unfinished == set()
        assert not any("cells of other worlds" in note for note in selection.notes)
        chosen = select(tmp_path, "tiny", world="world-b")
        assert keys(chosen.elsewhere["world 0 (world-a)"].records) == keys(selection.records)


def test_cells_that_another_world_lacks_are_told(tmp_path: Path):
    other = replace(fakes.PROFILE, world=WorldConfig(seed=1))
    here, there = (fakes.cells(["diffro", "rrpo"], seeds, world=world) for seeds, world in (([1], "a"), ([1, 2], "b")))
    there = [replace(cell, profile=other) for cell in there]
    with tiny_grid():
        store_cells(tmp_path, here)
        store_cells(tmp_path, there[:2])
        Tracker(check(tmp_path), "tiny", {}, {}).start_invocation([*there, replace(there[0], seed=1000)], {})
        selection = select(tmp_path, "tiny")
        assert "Reported separately: 2 of 4 planned cells (2 missing) of world 1 (world-b)." in selection.notes
        assert selection.unfinished == {("diffro", 2), ("rrpo", 2)}
        assert selection.lost == {}
        assert "; not all planned cells are complete)" in worlds.span(selection)


def keys(records: tuple[Record, ...]) -> list[tuple[str, int]]:
    return sorted((record.label, record.seed) for record in records)
