"""Controls of a grid: an interval entirely above SFT fails a control, and the report states this first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import fakes
import pandas as pd
import pytest
from stored import store_cells
from synthetic import START, Fake, checkpoint, grid, record

from ablations.grids import full
from ablations.stats.statistics import t_interval
from ablations.tracking import recorder
from ablations.tracking.recorder import Tracker
from ablations.tracking.records import Record
from ablations.tracking.runs_folder import check
from reports import controls
from reports.loading import Selection, select
from reports.report import make
from reports.words import methods
from rrpo.profiles import SMOKE


def framed(make: object = record, **levels: Sequence[float]) -> Selection:
    """Return a complete grid of eight seeds, with controls that end at these values of clean success and gold on the first
    seeds."""
    selection = grid({"ls": 0.1})
    start = [record("sft", seed, START) for seed in range(8)]
    records = [r for r in selection.records if r.label != "sft"]
    control_records = [make(arm, seed, level) for arm, values in levels.items() for seed, level in enumerate(values)]  # type: ignore[operator]
    counts = {arm: len(values) for arm, values in levels.items()}
    return replace(selection, records=(*start, *records, *control_records), planned=selection.planned | counts)


def test_a_control_holds_unless_its_interval_lies_above_sft():
    """Starting at .6, one control decreases in every seed; the other increases on average (+.02), but not in one seed."""
    results = controls.controls(framed(placebo=[0.4, 0.45, 0.38], content_only=[0.66, 0.64, 0.56]))
    assert [(control.arm, control.verdict, control.raised) for control in results] == [
        ("placebo", "holds", []),
        ("content_only", "holds", []),
    ]
    assert results[0].changes["clean_success"] == pytest.approx(t_interval([-0.2, -0.15, -0.22]))
    assert results[1].changes["gold"].n == 3, "paired over its own seeds"
    assert controls.failures(results) == []


def test_the_rule_on_lengths_which_sft_cannot_break_does_not_hide_a_control_that_improves():
    """A fifth of the control's clean samples have an odd length. The declared rule counts them; the column beside it does not."""

    def odd(label: str, seed: int, level: float) -> Record:
        cell = record(label, seed, level)
        length = (cell.samples.index % 5 == 0) & (cell.samples["step"] > 0)
        cell.__dict__["samples"] = cell.samples.assign(artefact_length=length)
        return cell

    (control,) = controls.controls(framed(odd, placebo=[0.65, 0.66, 0.64]))
    assert control.changes["clean_success"].mean == pytest.approx(0.65 * 0.8 - START, abs=0.001)
    assert control.at_any_length.mean == pytest.approx(0.65 - START)
    table = controls.sheet([control])
    assert table is not None
    assert table.row("placebo")["clean_at_any_length"] == control.at_any_length


def test_a_control_that_ends_above_sft_fails_and_the_report_says_so_first():
    selection = framed(placebo=[0.4, 0.45, 0.38], content_only=[0.66, 0.65, 0.67])
    report = make(selection)
    assert report.answer[0].startswith(
        "CONTROL FAILED: content_only exceeds SFT in clean success (+6.0 [+3.5, +8.5] points) and gold accuracy (+6.0 ["
    )
    assert report.answer[1].startswith("RRPO reduces reward hacking: ")
    sheet = next(sheet for sheet in report.sheets if sheet.name == "controls")
    assert [(row[0], row[1], row[-1]) for row in sheet.rows] == [
        ("placebo", 3, "holds"),
        ("content_only", 3, "FAILS"),
    ]


def test_either_of_the_two_outcomes_fails_it():
    """Gold increases but clean success does not, because the samples that gold recognizes contain clicks."""

    def clicking(arm: str, seed: int, level: float) -> Fake:
        cell = record(arm, seed, level)
        end = checkpoint(140, 0, ("test", "val"), 2000)
        return Fake(
            arm, seed, cell.points, pd.concat([cell.samples[cell.samples["step"] == 0], end]), params=cell.params
        )

    (control,) = controls.controls(framed(clicking, placebo=[0.66, 0.65, 0.67]))
    assert (control.raised, control.verdict) == (["gold"], "FAILS")


def test_one_seed_tells_nothing_and_a_grid_without_controls_has_no_table():
    (control,) = controls.controls(framed(placebo=[0.9]))
    assert control.verdict == "unknown (fewer than two seeds)"
    assert controls.failures([control]) == []
    assert controls.sheet(controls.controls(framed())) is None


def test_controls_on_three_seeds_leave_no_grid_interim():
    """Eight seeds are planned and complete, but only three for the controls; the family is tested at n = 8."""
    report = make(framed(placebo=[0.4, 0.45, 0.38], content_only=[0.4, 0.41, 0.39]))
    assert "Interim" not in report.answer[0]
    assert "n = 8 seeds, intervals simultaneous over 7." in report.answer[0]
    assert "rrpo, placebo on 3, content_only on 3) by 8 seeds" in report.methods


def test_what_was_not_planned_is_not_missing(runs: Path):
    """The real grid's plan of five seeds, as stored by an invocation; only one cell is complete."""
    labels = {(cell.label, cell.seed) for cell in full(SMOKE, range(1, 6))}
    cells = [replace(cell, seed=seed) for label, seed in sorted(labels) for cell in fakes.cells([label], [seed])]
    recorder.create(check(runs), "tiny")
    Tracker(check(runs), "tiny", {}, {}).start_invocation(cells, {})
    store_cells(runs, [cell for cell in cells if cell.name == "diffro/1"])
    selection = select(runs, "tiny")
    assert (selection.planned["placebo"], selection.planned["diffro"], selection.planned_n) == (3, 5, 5)
    assert selection.counted.startswith(f"Of {len(cells)} planned cells 1 are complete, {len(cells) - 1} missing")
    assert ("placebo", 4) not in selection.lost
    assert "placebo on 3" in methods(selection)
