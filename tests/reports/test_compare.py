"""Comparison of two grids: paired if possible, otherwise with Welch's interval."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t
from typer.testing import CliRunner

from ablations.stats.statistics import Interval, t_interval
from ablations.tracking.records import Record
from reports.compare import app, compare, welch
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


def test_seeds_of_the_same_world_are_paired():
    a = selection("a", "w", {"diffro": [0.1, 0.2, 0.3], "only": [0.1]})
    b = selection("b", "w", {"rrpo": [0.2, 0.3], "diffro": [0.2, 0.3, 0.5]})
    sheet = compare(a, b, "hack_rate")
    assert [row[0] for row in sheet.rows] == ["diffro"]
    assert sheet.row("diffro")["interval"] == "paired, n = 3"
    assert sheet.row("diffro")["difference"] == pytest.approx(t_interval([0.1, 0.1, 0.2]))
    assert sheet.columns[3].unit == "gain"


def test_seeds_that_only_one_grid_has_are_left_out_of_the_pairs():
    """The first grid lacks the value of seed 0, the second one has no seed 3."""
    a = selection("a", "w", {"rrpo": [math.nan, 0.1, 0.2, 0.9]})
    b = selection("b", "w", {"rrpo": [0.7, 0.2, 0.4]})
    row = compare(a, b, "hack_rate").row("rrpo")
    assert row["interval"] == "paired, n = 2"
    assert row["difference"] == pytest.approx(t_interval([0.1, 0.2]))


@pytest.mark.parametrize(("world", "rates"), [("v", [0.2, 0.3, 0.5]), ("w", [0.2])])
def test_other_worlds_and_single_common_seeds_are_not_paired(world: str, rates: list[float]):
    row = compare(
        selection("a", "w", {"diffro": [0.1, 0.2, 0.3]}), selection("b", world, {"diffro": rates}), "hack_rate"
    ).row("diffro")
    assert row["interval"] == "Welch"
    assert row["difference"] == pytest.approx(welch([0.1, 0.2, 0.3], rates), nan_ok=True)


def test_of_two_pooled_worlds_only_the_shared_one_is_paired():
    """Both grids have seeds 0 to 2, but seeds 1 and 2 of the second one belong to another world."""
    a = selection("a", "w", {"diffro": [0.1, 0.2, 0.3]})
    first = selection("b", "w", {"diffro": [0.2]})
    others = selection("b", "v", {"diffro": [0.9, 0.3, 0.5]})
    pooled = replace(first, records=(*first.records, *others.records[1:]))
    row = compare(a, pooled, "hack_rate").row("diffro")
    assert row["interval"] == "Welch"
    assert row["difference"] == pytest.approx(welch([0.1, 0.2, 0.3], [0.2, 0.3, 0.5]))


def test_welch_by_hand():
    x, y = [1.0, 2.0, 3.0], [2.0, 4.0, 6.0, 8.0]
    vx, vy = 1 / 3, np.var(y, ddof=1) / 4
    df = (vx + vy) ** 2 / (vx**2 / 2 + vy**2 / 3)
    half = t.ppf(0.975, df) * np.sqrt(vx + vy)
    assert welch(x, y) == pytest.approx(Interval(3.0, 3 - half, 3 + half, 3))


def test_nothing_shared_gets_one_message():
    with pytest.raises(InputError, match="share no arm"):
        compare(selection("a", "w", {"ls": [0.1]}), selection("b", "w", {"eam": [0.1]}), "hack_rate")


def test_the_command_compares_two_runs_folders(reported: Path, tmp_path: Path):
    runs = str(reported / "runs")
    other = shutil.copytree(reported / "runs", tmp_path / "other")
    command = ["tiny", "tiny", "--runs-dir", runs, "--other-runs-dir", str(other)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert re.search(r"\| rrpo \| .* \| \+0\.0 ± 0\.0 \| paired, n = 3 \|", result.output)
    assert result.output.startswith("# clean success, %: tiny and tiny")
    result = CliRunner().invoke(app, [*command, "--metric", "kl_token"])
    assert result.output.startswith("# KL, nats/token: tiny and tiny")
    for wrong in (["--metric", "nosuch"], ["--world", "nosuch"], ["--profile", "embedded"]):
        assert CliRunner().invoke(app, [*command, *wrong]).exit_code == 2
