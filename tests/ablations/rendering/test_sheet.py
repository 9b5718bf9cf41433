"""Tables: rounded text, marks of best and second, unrounded CSV."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ablations.rendering.sheet import Column, Sheet, as_csv, markdown, show
from ablations.stats.statistics import Interval

COLUMNS = (Column("arm", "arm"), Column("up", "up, %", "percent", +1), Column("down", "down", "plain", -1))


def sheet(*rows: tuple, unranked: frozenset[str] = frozenset()) -> Sheet:
    return Sheet("t", "T", COLUMNS, rows, ("A note.",), unranked)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        ("words", "text", "words"),
        (0.1234, "percent", "12.3"),
        (0.1234, "gain", "+12.3"),
        (math.nan, "plain", "–"),
        (0.0321, "plain", "0.032"),
        (4480.0, "count", "4480"),
        (Interval(0.5, 0.4, 0.6, 3), "percent", "50.0 ± 10.0"),
        (Interval(-0.01, -0.03, 0.01, 3), "gain", "-1.0 ± 2.0"),
        (Interval(0.5, 0.2, 0.6, 3), "share", "50.0 [20.0, 60.0]"),
        (Interval(1.5, -0.2, 3.0, 3), "effect", "+1.50 [-0.20, +3.00]"),
        (Interval(0.5, math.nan, math.nan, 1), "percent", "50.0"),
        (Interval(math.nan, math.nan, math.nan, 0), "percent", "–"),
    ],
)
def test_values_as_text(value: float, unit: str, text: str):
    assert show(value, unit) == text


def test_best_and_second_follow_the_direction_and_leave_frames_out():
    table = sheet(
        ("a", 0.5, 1.0), ("b", 0.7, 3.0), ("c", 0.6, 2.0), ("oracle", 0.9, 0.1), unranked=frozenset({"oracle"})
    )
    assert table.marks() == {(1, 1): "best", (2, 1): "second", (0, 2): "best", (2, 2): "second"}
    assert "| b | **70.0** | 3.000 |" in markdown(table)
    assert "| oracle | 90.0 | 0.100 |" in markdown(table)


def test_rows_shown_alike_share_their_mark_and_two_rows_get_none():
    table = sheet(("a", 0.70001, math.nan), ("b", 0.70002, math.nan), ("c", 0.6, math.nan))
    assert table.marks() == {(0, 1): "best", (1, 1): "best", (2, 1): "second"}
    assert sheet(("a", 0.5, 1.0), ("b", 0.7, 3.0)).marks() == {}


def test_csv_keeps_unrounded_fractions_and_four_fields_an_interval():
    table = sheet(
        ("a", Interval(1 / 3, 0.25, 0.5, 8), math.nan), ("b, c", Interval(math.nan, math.nan, math.nan, 0), 2.0)
    )
    assert as_csv(table).splitlines() == [
        "arm,up_mean,up_low,up_high,up_n,down",
        "a,0.3333333333333333,0.25,0.5,8,",
        '"b, c",,,,0,2.0',
    ]


def test_csv_holds_numbers_of_numpy_as_numbers():
    table = sheet(("a", Interval(np.float64(0.5), np.float64(0.25), np.float64(0.75), 2), np.float64("nan")))
    assert as_csv(table).splitlines()[1] == "a,0.5,0.25,0.75,2,"
