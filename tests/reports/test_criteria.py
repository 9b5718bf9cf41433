"""What keeps samples from being clean, and the contrasts under other definitions of clean success, by hand."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from synthetic import SAMPLES, Fake, checkpoint, grid, record, with_unplanned_seeds

from ablations.rendering.sheet import Sheet
from ablations.stats.statistics import Interval
from reports.criteria import sheets
from reports.effects import first_sheet, rows
from reports.loading import Selection
from reports.report import make


def cell(label: str, seed: int, clean: float, clicks: float) -> Fake:
    """Return a cell whose last samples are clean, have a click, or have another emotion."""
    made = record(label, seed, clean)
    last = checkpoint(140, round(SAMPLES * clean) + seed, ("test", "val"), round(SAMPLES * clicks))
    made.__dict__["samples"] = pd.concat([made.samples[made.samples["step"] == 0], last], ignore_index=True)
    return made


@pytest.fixture
def selection() -> Selection:
    """DiffRO: half of the samples are clean, a fifth have clicks; RRPO: seven tenths are clean, none has a click."""
    records = [cell("diffro", seed, 0.5, 0.2) for seed in (1, 2, 3)] + [
        cell("rrpo", seed, 0.7, 0.0) for seed in (1, 2, 3)
    ]
    return Selection("full", tuple(records), {"diffro": 3, "rrpo": 3}, (), (3,))


def table_of(selection: Selection, name: str) -> Sheet:
    (table,) = (sheet for sheet in sheets(selection) if sheet.name == name)
    return table


def mean(value: object) -> float:
    assert isinstance(value, Interval)
    return round(value.mean, 3)


def test_every_criterion_is_counted_by_itself(selection: Selection) -> None:
    table = table_of(selection, "criteria")
    assert [column.name for column in table.columns] == [
        "arm",
        "n",
        "fails_emotion",
        "fails_phone errors",
        "fails_click",
    ]
    row = table.row("diffro")
    assert [mean(row[name]) for name in ("fails_emotion", "fails_phone errors", "fails_click")] == [0.299, 0.0, 0.2]


def test_a_contrast_that_is_all_clicks_vanishes_without_them(selection: Selection) -> None:
    table = table_of(selection, "definitions")
    means = {str(row[0]): mean(table.row(str(row[0]))["RRPO - DiffRO"]) for row in table.rows}
    assert means == {
        "clean success": 0.2,
        "by the val judge": 0.2,
        "without emotion": 0.2,
        "without phone errors": 0.2,
        "without click": 0.0,
    }, "the third judge evaluated nothing"
    assert table.row("by the val judge")["prompts"] == SAMPLES
    assert {"definitions", "criteria"} <= {sheet.name for sheet in make(selection).sheets}


def test_a_diverged_cell_is_left_out_of_every_definition(selection: Selection) -> None:
    records = tuple(r for r in selection.records if (r.label, r.seed) != ("diffro", 2))
    table = table_of(replace(selection, records=records, lost={("diffro", 2): "diverged"}), "definitions")
    assert {row[2] for row in table.rows} == {2}


def test_the_tested_definition_has_the_seeds_and_means_of_the_first_table() -> None:
    selection = with_unplanned_seeds(grid({"ls": 0.1}, seeds=4))
    first = first_sheet(selection, rows(selection))
    assert first is not None
    row = table_of(selection, "definitions").row("clean success")
    for name in map(str, (row[0] for row in first.rows)):
        expected, shown = first.row(name)["clean_success"], row[name]
        assert isinstance(expected, Interval)
        assert isinstance(shown, Interval)
        assert (shown.mean, shown.n) == (pytest.approx(expected.mean), 4)


def test_a_screen_tests_nothing_and_has_no_contrasts(selection: Selection) -> None:
    assert [sheet.name for sheet in sheets(replace(selection, grid="baselines"))] == ["criteria"]
