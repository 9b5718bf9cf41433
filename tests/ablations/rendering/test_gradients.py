"""The page of gradients: hand-computed means and ratios."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from ablations.rendering.gradients import AGAINST, MEASURES, page, ratio, sheets


def values() -> pd.DataFrame:
    """Return values of two methods on two seeds at two policies: DiffRO's are half of REINFORCE's."""
    rows = [
        {"arm": "ls", "profile": "quick", "seed": seed, "updates": updates, "place": place, "method": method}
        | dict.fromkeys(MEASURES, value * (1 + 0.1 * seed))
        for seed in (0, 1)
        for place, updates in (("SFT", 0), ("peak", 60 + 20 * seed))
        for method, value in (("diffro", 3.0), (AGAINST, 6.0))
    ]
    return pd.DataFrame(rows)


def test_ratios_are_geometric_means_of_pairs_above_zero() -> None:
    interval = ratio([2.0, 8.0], [1.0, 1.0])
    assert (interval.mean, interval.n) == (pytest.approx(4.0), 2)
    assert interval.low < 4 < interval.high
    alone = ratio([3.0], [1.5])
    assert alone.mean == pytest.approx(2.0)
    assert math.isnan(alone.low)


@pytest.mark.parametrize("pair", [([2.0, -1.0], [1.0, 1.0]), ([2.0, 1.0], [1.0, 0.0]), ([2.0, 1.0], [math.nan, 1.0])])
def test_a_ratio_leaves_no_seed_out(pair: tuple[list[float], list[float]]) -> None:
    assert ratio(*pair).n == 0


def test_each_measure_has_every_method_and_its_ratio() -> None:
    at_sft, at_peak = sheets(values())
    assert (at_sft.title, at_peak.title) == ("SFT, after 0 updates", "peak, after 60, 80 updates")
    head, rows = at_sft.texts()
    assert head == ["measure", "diffro", "reinforce", "diffro / reinforce"]
    half = 12.706 * 0.15  # of the means of 3 and 3.3; the ratio is exact
    mean, twice = (f"{k * 3.15:.3g} [{k * (3.15 - half):.3g}, {k * (3.15 + half):.3g}]" for k in (1, 2))
    assert rows == [[label, mean, twice, "0.5 [0.5, 0.5]"] for label in MEASURES.values()]


def test_missing_values_are_counted_and_have_no_ratio() -> None:
    table = values()
    table.loc[(table["method"] == AGAINST) & (table["seed"] == 1), "alignment"] = math.nan
    table.loc[table["method"] == AGAINST, "swap_held"] = math.nan
    rows = {row[0]: row[2:] for row in sheets(table)[0].texts()[1]}
    assert rows[MEASURES["alignment"]] == ["6 (n = 1)", "–"]
    assert rows[MEASURES["swap_held"]] == ["–", "–"]


def test_the_page_says_where_the_values_come_from() -> None:
    text = page(values())
    assert text.startswith("# Gradients of arm ls\n")
    assert "profile quick, n = 2 seeds (0, 1)." in text
    assert text.count("| 0.5 [0.5, 0.5] |") == 2 * len(MEASURES)
