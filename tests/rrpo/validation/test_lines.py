"""Lines, their thresholds and their intervals."""

import math
from pathlib import Path

import numpy as np
import pytest

from rrpo.validation.lines import NOT_INSTALLED, Line, bootstrap, load, mean, ratio, save, share


def line(**fields: object) -> Line:
    return Line(section="s", name="n", **fields)  # type: ignore[arg-type]


def test_verdicts() -> None:
    assert line(value=0.9, at_least=0.9).passed is True
    assert line(value=0.89, at_least=0.9).passed is False
    assert line(value=0.05, at_most=0.05).passed is True
    assert [line(value=v, at_least=0.9, at_most=1.1).passed for v in (0.8, 1.0, 1.2)] == [False, True, False]
    assert line(value=0.5).passed is None
    assert line(at_least=0.9).passed is False  # a value that could not be had is no pass
    assert line(at_least=0.9, note=NOT_INSTALLED).passed is None
    numbers = np.array([0.1, 0.3])  # of numpy, whose booleans are not Python's
    assert line(value=numbers[0], at_least=0.2).passed is False
    assert line(value=numbers[1], low=numbers[0], at_least=0.0, decided_by="low").passed is True


def test_more_than_chance_is_decided_by_the_intervals_lower_end() -> None:
    assert line(value=0.3, low=0.01, at_least=0.0, decided_by="low").passed is True
    assert line(value=0.3, low=-0.01, at_least=0.0, decided_by="low").passed is False
    assert line(value=0.3, low=0.0, at_least=0.0, decided_by="low").passed is False


def test_thresholds_in_words() -> None:
    assert line().threshold == "-"
    assert line(at_least=0.85, at_most=0.97).threshold == ">= 0.85 and <= 0.97"
    assert line(at_least=0.0, decided_by="low").threshold == "interval > 0"


def test_wilson_by_hand() -> None:
    estimate = share([True] * 8 + [False] * 2)
    assert estimate["value"] == 0.8
    assert estimate["low"] == pytest.approx(0.4902, abs=1e-4)  # Wilson 1927 at 8 of 10
    assert estimate["high"] == pytest.approx(0.9433, abs=1e-4)
    assert share([False] * 5)["low"] == pytest.approx(0, abs=1e-9)
    assert math.isnan(share([])["value"])


def test_bootstrap_covers_the_mean_at_about_its_level() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for seed in range(200):
        x = rng.normal(size=60)
        estimate = bootstrap(lambda rows, x=x: float(x[rows].mean()), len(x), 200, seed)
        covered.append(estimate["low"] <= 0 <= estimate["high"])
    assert 0.88 <= np.mean(covered) <= 0.99


def test_paired_difference_is_narrower_than_its_parts() -> None:
    rng = np.random.default_rng(0)
    before = rng.random(300) < 0.7
    after = before & (rng.random(300) < 0.9)
    paired, single = mean(before.astype(float) - after, 300), mean(before, 300)
    assert paired["high"] - paired["low"] < single["high"] - single["low"]
    assert paired["value"] == pytest.approx(before.mean() - after.mean())


def test_ratio_weighs_by_the_denominator() -> None:
    assert ratio(np.array([1.0, 0.0]), np.array([10.0, 30.0]), 10)["value"] == pytest.approx(1 / 40)


def test_lines_come_back_from_disk(tmp_path: Path) -> None:
    lines = [line(value=0.5, low=0.4, high=0.6, at_least=0.3), line(note=NOT_INSTALLED, at_least=1)]
    save(lines, tmp_path / "l.json")
    back = load(tmp_path / "l.json")
    assert back[0] == lines[0]
    assert math.isnan(back[1].value)
    assert back[1].note == NOT_INSTALLED
