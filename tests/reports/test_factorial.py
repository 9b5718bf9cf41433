"""Table of the factorial, on known gains: with interactions, its columns differ."""

from __future__ import annotations

import pandas as pd
import pytest
from synthetic import record

from ablations.components import subsets
from ablations.rendering.sheet import as_csv, markdown
from ablations.tracking.records import Record
from reports.factorial import sheet
from rrpo.arms import name_of


def records(oracle: bool) -> list[Record]:
    """LS adds 2 points alone and 4 more with Adv; EAM adds 1. Seeds differ by a level that pairing removes, plus a small
    residual."""
    made: list[Record] = []
    for seed in range(4):
        wobble = 0.001 * (seed - 1.5)
        for on in subsets():
            gain = 0.02 * ("ls" in on) + 0.04 * ("ls" in on and "adv" in on) + 0.01 * ("eam" in on) + wobble * len(on)
            made.append(record(name_of(on), seed, 0.4 + 0.05 * seed + gain))
        if oracle:
            made.append(record("oracle", seed, 0.4 + 0.05 * seed + 0.14 + wobble))
    return made


def test_columns_part_under_interaction():
    made = sheet(records(oracle=False))
    assert made is not None
    means = {
        str(row[0]): {c.name: v.mean for c, v in zip(made.columns[1:], row[1:], strict=True)}  # type: ignore[union-attr]
        for row in made.rows
    }
    assert means["LS"] == pytest.approx({"effect": 0.04, "alone": 0.02, "corner": 0.06})
    assert means["Adv"] == pytest.approx({"effect": 0.02, "alone": 0.0, "corner": 0.04})
    assert means["LS x Adv"]["effect"] == pytest.approx(0.02)
    assert means["RRPO - DiffRO"]["effect"] == pytest.approx(0.07)


def test_shares_of_the_oracles_gap():
    made = sheet(records(oracle=True))
    assert made is not None
    closed = {str(row[0]): row[-1].mean for row in made.rows}  # type: ignore[union-attr]
    assert closed["RRPO - DiffRO"] == pytest.approx(0.5)
    assert closed["LS"] == pytest.approx(0.04 / 0.14)
    assert "nan" not in markdown(made) + as_csv(made)


def test_without_the_whole_factorial_there_is_no_table():
    assert sheet([r for r in records(oracle=False) if r.label != "ls"]) is None
    bare = record("rrpo", 1, 0.0)
    bare.__dict__["points"] = bare.__dict__["samples"] = pd.DataFrame()
    assert sheet([bare]) is None
