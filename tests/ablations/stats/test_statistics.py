"""Hand-computed intervals, and curves evaluated where they reach a level."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ablations.stats.statistics import Interval, at_passage, in_points, listed, mean_path, t_interval


def test_t_interval_by_hand():
    # mean 2, s = 1, t_{2, .975} = 4.30265: half width 4.30265 / sqrt(3)
    mean, low, high, n = t_interval([1, 2, 3])
    assert (mean, n) == (2, 3)
    assert high - mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert mean - low == pytest.approx(high - mean)


def test_t_interval_of_few_or_bad_values():
    assert t_interval([5.0])[0] == 5
    assert math.isnan(t_interval([5.0]).low)
    assert t_interval([]).n == 0
    assert t_interval([1, math.nan, 3, math.inf]).n == 2
    assert t_interval([4, 4, 4])[:3] == (4, 4, 4)


def test_t_interval_covers_95_percent():
    rng = np.random.default_rng(0)
    inside = [interval.low < 0 < interval.high for interval in (t_interval(x) for x in rng.normal(size=(4000, 5)))]
    assert 0.94 < np.mean(inside) < 0.96


def test_mean_path_is_the_mean_of_each_checkpoint():
    d, y = mean_path([([0, 1, 2], [0, 1, 2]), ([0, 3], [1, 2])])
    assert d.tolist() == [0, 2]
    assert y.tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    ("d", "y", "end", "expected"),
    [
        ([0, 1, 2], [0.2, 0.4, 1.0], 1.5, 0.7),
        ([0, 1, 2], [0.2, 0.4, 1.0], 1.0, 0.4),
        ([0, 2, 1, 3], [0.0, 1.0, 9.0, 2.0], 1.5, 0.75),
        ([0, 1, 2], [0.2, math.nan, 1.0], 1.0, 0.6),
        ([0, 1], [0.2, 0.4], 5.0, math.nan),
        ([0, 1], [math.nan, math.nan], 1.0, math.nan),
    ],
    ids=["between", "at a checkpoint", "first passage", "not asked in the middle", "never there", "never asked"],
)
def test_a_measure_is_read_where_a_level_is_first_passed(d, y, end, expected):
    assert at_passage(d, y, end) == pytest.approx(expected, nan_ok=True)


def test_a_mean_in_points_with_its_interval_or_without() -> None:
    assert in_points(Interval(0.01, -0.02, 0.04, 5)) == "+1.0 [-2.0, +4.0]"
    assert in_points(Interval(-0.1, math.nan, math.nan, 1)) == "-10.0"


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ([1, 2, 3], "1 to 3"),
        ([1, 2], "1, 2"),
        ([1, 2, 4], "1, 2, 4"),
        ((2000, 2003), "2000, 2003"),
        ([7], "7"),
        ([], "(none)"),
    ],
)
def test_seeds_in_words(seeds: list[int], text: str):
    assert listed(seeds) == text
