"""Hand-computed cases of intervals and of gain at matched KL."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.statistics import at_passage, matched_kl_gain, mean_path, t_interval


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


def test_a_straight_gain_has_half_its_height_as_mean():
    found = matched_kl_gain({"a": ([0, 1], [0.5, 0.7])})
    assert found.gains == {"a": pytest.approx(0.1)}
    assert found.reach == 1


def test_the_common_range_ends_at_the_smallest_reach():
    # over [0, 1]: a rises by .2 (mean .1); b rises to .3 at 1 of its 2 (mean .15)
    found = matched_kl_gain({"a": ([0, 1], [0.5, 0.7]), "b": ([0, 2], [0.5, 1.1])})
    assert found.reach == 1
    assert found.gains == {"a": pytest.approx(0.1), "b": pytest.approx(0.15)}


def test_what_happens_beyond_the_common_range_does_not_count():
    short = ([0, 1], [0.5, 0.5])
    hacked = matched_kl_gain({"a": short, "b": ([0, 1, 3], [0.5, 0.6, 0.0])})
    healthy = matched_kl_gain({"a": short, "b": ([0, 1, 3], [0.5, 0.6, 0.9])})
    assert hacked.gains == healthy.gains


def test_kl_that_falls_back_counts_at_first_passage():
    # out to 1 (gain .2), back to .5 (gain 0), out to 2 (gain .6): it crosses 1 again a third of the way, where the
    # gain is .6 / 3 = .2. Mean over [0, 2]: ((0 + .2) / 2 + (.2 + .6) / 2) / 2 = .25
    found = matched_kl_gain({"a": ([0, 1, 0.5, 2], [0.5, 0.7, 0.5, 1.1])})
    assert found.gains["a"] == pytest.approx(0.25)


def test_sft_gains_nothing_and_does_not_set_the_range():
    found = matched_kl_gain({"sft": ([0], [0.5]), "a": ([0, 1], [0.5, 0.7])}, stops={"sft"})
    assert found.gains == {"sft": 0, "a": pytest.approx(0.1)}
    assert found.stuck == ()


def test_an_early_stopped_arm_keeps_its_last_accuracy():
    # to .5 in a line (mean .1 over half the range), then .2 for the other half: .15
    found = matched_kl_gain({"early": ([0, 0.5], [0.5, 0.7]), "a": ([0, 1], [0.5, 0.5])}, stops={"early"})
    assert found.reach == 1
    assert found.gains["early"] == pytest.approx(0.15)


def test_an_arm_that_does_not_move_is_named_and_does_not_collapse_the_range():
    found = matched_kl_gain({"dead": ([0, 0.01], [0.5, 0.5]), "a": ([0, 1], [0.5, 0.7]), "b": ([0, 1], [0.5, 0.7])})
    assert found.stuck == ("dead",)
    assert found.reach == 1


def test_no_arm_moves_gives_no_number():
    found = matched_kl_gain({"a": ([0, 0], [0.5, 0.7]), "b": ([0], [0.5])})
    assert all(math.isnan(gain) for gain in found.gains.values())
    assert set(found.stuck) == {"a", "b"}
    assert matched_kl_gain({}).gains == {}


@given(
    d=st.lists(st.floats(0, 1), min_size=1, max_size=8),
    y=st.lists(st.floats(0, 1), min_size=9, max_size=9),
    end=st.floats(0.2, 1),
)
def test_gain_agrees_with_a_fine_grid(d: list[float], y: list[float], end: float):
    """Against brute force: walk the path in small steps and read the accuracy at the first passage of each level."""
    d = [0.0, *d, 1.5]
    y = y[: len(d)] + [0.5] * (len(d) - len(y))
    found = matched_kl_gain({"a": (d, y), "ruler": ([0, end], [0, 0])})
    time = np.linspace(0, len(d) - 1, 40001)
    walked, accuracy = np.interp(time, range(len(d)), d), np.interp(time, range(len(d)), y)
    furthest = np.maximum.accumulate(walked)
    levels = (np.arange(2000) + 0.5) / 2000 * end
    first = np.minimum(np.searchsorted(furthest, levels), len(time) - 1)
    assert found.gains["a"] == pytest.approx(np.mean(accuracy[first] - y[0]), abs=5e-3)


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
