"""Comparison of two grids: paired if possible, otherwise with Welch's interval."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from ablations.stats.statistics import Interval, t_interval
from ablations.tracking.records import Record
from reports.compare import compare, welch
from reports.loading import Selection
from rrpo.errors import InputError


def selection(grid: str, world: str, hack: dict[str, list[float]]) -> Selection:
    records = []
    for arm, rates in hack.items():
        for seed, rate in enumerate(rates):
            record = Record(label=arm, seed=seed, world_hash=world, profile="smoke")
            record.__dict__["scalars"] = {"hack_rate": rate}
            record.__dict__["points"] = pd.DataFrame()
            records.append(record)
    return Selection(grid, tuple(records), dict.fromkeys(hack, 3), ())


def test_same_world_and_seeds_are_paired_and_others_are_not():
    a = selection("a", "w", {"diffro": [0.1, 0.2, 0.3], "rrpo": [0.1, 0.1, 0.2], "only": [0.1]})
    b = selection("b", "w", {"rrpo": [0.2, 0.3], "diffro": [0.2, 0.3, 0.5]})
    sheet = compare(a, b, "hack_rate")
    assert [row[0] for row in sheet.rows] == ["diffro", "rrpo"]
    diffro, rrpo = sheet.row("diffro"), sheet.row("rrpo")
    assert diffro["interval"] == "paired"
    assert diffro["difference"] == pytest.approx(t_interval([0.1, 0.1, 0.2]))
    assert rrpo["interval"] == "Welch"
    assert sheet.columns[3].unit == "gain"
    elsewhere = selection("b", "v", {"diffro": [0.2, 0.3, 0.5]})
    assert compare(a, elsewhere, "hack_rate").row("diffro")["interval"] == "Welch"


def test_welch_by_hand():
    x, y = [1.0, 2.0, 3.0], [2.0, 4.0, 6.0, 8.0]
    vx, vy = 1 / 3, np.var(y, ddof=1) / 4
    df = (vx + vy) ** 2 / (vx**2 / 2 + vy**2 / 3)
    half = t.ppf(0.975, df) * np.sqrt(vx + vy)
    assert welch(x, y) == pytest.approx(Interval(3.0, 3 - half, 3 + half, 3))


def test_nothing_shared_gets_one_message():
    with pytest.raises(InputError, match="share no arm"):
        compare(selection("a", "w", {"ls": [0.1]}), selection("b", "w", {"eam": [0.1]}), "hack_rate")
