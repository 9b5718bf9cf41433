"""The report of a screen: estimates and intervals, no tests; results unfavorable to RRPO are reported as such."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic import record

from reports import screen
from reports.effects import rows
from reports.loading import Selection
from reports.report import make
from reports.words import answer

LEVELS = {"sft": 0.6, "diffro": 0.5, "rrpo": 0.7, "grpo": 0.8, "mixup": 0.7}
NOISE = {1: -0.02, 2: 0.0, 3: 0.02}


def screened(grid: str = "baselines") -> Selection:
    """Return a screen of three seeds, in which the noise of mixup, DiffRO and SFT differs from that of the others."""
    sign = {"mixup": -1.0, "diffro": 0.5, "sft": 0.8}
    records = tuple(
        record(arm, seed, level + sign.get(arm, 1.0) * noise + 0.001 * seed)
        for arm, level in LEVELS.items()
        for seed, noise in NOISE.items()
    )
    return Selection(grid, records, dict.fromkeys(LEVELS, 3), (), plans=(3,), grid_labels=frozenset(LEVELS))


def test_nothing_is_tested_and_every_system_is_held_against_rrpo():
    selection = screened()
    assert selection.tested == {}
    table = screen.sheet(selection)
    assert table is not None
    assert [row[0] for row in table.rows] == ["rrpo - sft", "rrpo - diffro", "rrpo - grpo", "rrpo - mixup"]
    assert table.row("rrpo - grpo")["clean_success"].mean == pytest.approx(-0.1)  # type: ignore[union-attr]
    sentence = answer(selection, rows(selection))[0]
    assert sentence.startswith(
        "Screen with 3 seeds, estimates only, nothing is tested: RRPO's clean success is above sft, diffro; "
    )
    assert "below grpo; not distinguished from mixup (unadjusted 95 % intervals" in sentence


def test_a_screen_without_rrpo_says_what_it_cannot_say():
    """One arm beside RRPO would be compared with it; RRPO alone has nothing to be compared with."""
    records = tuple(record(arm, seed, 0.5) for arm in ("sft", "emodiff") for seed in NOISE)
    planned = dict.fromkeys(("sft", "emodiff"), 3)
    selection = Selection("guidance", records, planned, (), plans=(3,), grid_labels=frozenset(planned))
    assert answer(selection, rows(selection)) == [
        "Screen with 3 seeds, estimates only, nothing is tested. It does not compare RRPO with another arm, so nothing can be "
        "said about reward hacking."
    ]


def test_a_control_is_held_against_its_component_if_that_was_run_too():
    selection = screened()
    eam = tuple(record("eam", seed, 0.65 + noise) for seed, noise in NOISE.items())
    table = screen.sheet(replace(selection, records=(*selection.records, *eam), planned=selection.planned | {"eam": 3}))
    assert table is not None
    assert [row[0] for row in table.rows][-2:] == ["rrpo - eam", "mixup - eam"]
    row = table.row("mixup - eam")
    assert row["clean_success"].mean == pytest.approx(0.052, abs=0.001)  # type: ignore[union-attr]
    assert row["clean_at_any_length"].n == 3  # type: ignore[union-attr]


def test_a_diverged_cell_counts_as_zero_in_a_screen_too():
    selection = screened()
    records = tuple(
        r for r in selection.records if (r.label, r.seed) not in {("grpo", 1), ("mixup", 1), ("mixup", 2), ("mixup", 3)}
    )
    lost = {("grpo", 1): "diverged", **{("mixup", seed): "diverged" for seed in (1, 2, 3)}}
    selection = replace(selection, records=records, lost=lost)
    table = screen.sheet(selection)
    assert table is not None
    assert table.row("rrpo - grpo")["n"] == "2 to 3", "the diverged cell has a clean success alone"
    assert table.row("rrpo - grpo")["clean_success"].mean == pytest.approx((0.681 - 0.1 - 0.1) / 3)  # type: ignore[union-attr]
    assert table.row("rrpo - mixup")["clean_success"].mean == pytest.approx(0.702)  # type: ignore[union-attr]
    first, second, *_ = answer(selection, rows(selection))
    assert "above sft, diffro, mixup; not distinguished from grpo" in first
    assert second.startswith("Diverged cells (4) count as clean success 0; without them: Screen with 3 seeds")
    assert "below grpo" in second
    assert "mixup" not in second


def test_the_same_cells_in_a_grid_that_tests_have_a_verdict():
    selection = screened("full")
    assert list(selection.tested[""]) == ["RRPO - DiffRO"]
    assert answer(selection, rows(selection))[0].startswith("RRPO stops reward hacking")


def test_the_report_of_a_screen_says_that_nothing_is_tested():
    report = make(screened())
    names = [sheet.name for sheet in report.sheets]
    assert names[0] == "screen"
    assert {"at_kl", "at_rollouts", "at_seconds"} <= set(names)
    assert "effects" not in names, "it has verdicts"
    for name in ("ablation", "outcomes"):
        (notes,) = (" ".join(sheet.notes) for sheet in report.sheets if sheet.name == name)
        assert "in the first table" not in notes
        assert ("nothing is tested" if name == "ablation" else "Estimates, not tested.") in notes
    assert "Nothing is tested." in report.methods
