"""The page of gradients: hand-computed means and ratios."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from ablations.rendering.gradients import AGAINST, MEASURES, ONCE, page, ratio, sheets


def values() -> pd.DataFrame:
    """Return values of two methods on two seeds at two policies: DiffRO's are half of REINFORCE's."""
    rows = [
        {"arm": "ls", "profile": "quick", "seed": seed, "updates": updates, "place": place, "method": method}
        | dict.fromkeys([*MEASURES, *ONCE], value * (1 + 0.1 * seed))
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
    tables = sheets(values())
    assert [table.title for table in tables] == [
        "SFT, after 0 updates",
        "SFT, ratios to reinforce",
        "peak, after 60, 80 updates",
        "peak, ratios to reinforce",
        "Once per policy",
    ]
    half = 12.706 * 0.15  # of the means of 3 and 3.3; the ratio is exact
    mean, twice = (f"{k * 3.15:.3g} [{k * (3.15 - half):.3g}, {k * (3.15 + half):.3g}]" for k in (1, 2))
    assert tables[0].texts() == (
        ["measure", "diffro", "reinforce"],
        [[label, mean, twice] for label in MEASURES.values()],
    )
    assert tables[1].texts() == (
        ["measure", "diffro"],
        [[label, "0.5 [0.5, 0.5]"] for label in MEASURES.values()],
    )


def test_missing_values_are_counted_and_have_no_ratio() -> None:
    table = values()
    table.loc[(table["method"] == AGAINST) & (table["seed"] == 1), "alignment"] = math.nan
    table.loc[table["method"] == AGAINST, "bias"] = math.nan
    means, ratios = ({row[0]: row[1:] for row in sheet.texts()[1]} for sheet in sheets(table)[:2])
    assert (means[MEASURES["alignment"]][1], means[MEASURES["bias"]][1]) == ("6 (n = 1)", "–")
    assert list(ratios) == [label for name, label in MEASURES.items() if name not in ("alignment", "bias")]
    table[list(MEASURES)] *= -1
    assert [sheet.title for sheet in sheets(table)][1] == "peak, after 60, 80 updates", "no ratio at all"


def test_what_is_measured_once_has_a_column_per_policy() -> None:
    table = values()
    table.loc[table["method"] == AGAINST, "swap_held"] = math.nan
    table.loc[(table["seed"] == 1) & (table["place"] == "peak"), "swap_held"] = math.nan
    head, rows = sheets(table)[-1].texts()
    assert head == ["measure", "SFT", "peak"]
    half = 12.706 * 0.15
    shown = {row[0]: row[1:] for row in rows}
    assert list(shown) == list(ONCE.values())
    assert shown[ONCE["swap_held"]] == [f"3.15 [{3.15 - half:.3g}, {3.15 + half:.3g}]", "3 (n = 1)"]


def test_the_page_says_where_the_values_come_from() -> None:
    text = page(values())
    assert text.startswith("# Gradients of arm ls\n")
    assert "profile quick, n = 2 seeds (0, 1)." in text
    assert text.count("| 0.5 [0.5,\u00a00.5] |") == 2 * len(MEASURES), "intervals are not broken"
