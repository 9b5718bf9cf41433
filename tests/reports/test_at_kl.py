"""Measures at declared values of KL, on paths whose crossing is known."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from synthetic import Fake

from ablations.rendering.sheet import Sheet, Value, markdown
from ablations.stats.family import KL_POINTS
from reports import at_kl
from reports.loading import Selection


def path(label: str, seed: int, kl: list[float], uptake: list[float], **columns: list[float]) -> Fake:
    points = pd.DataFrame({"step": range(len(kl)), "kl_token": kl, "test_accuracy": 0.5, "uptake": uptake} | columns)
    return Fake(label, seed, points)


def shown(*records: Fake) -> Selection:
    return Selection("x", records, dict.fromkeys([record.label for record in records], 1), ())


def rows(made: Sheet | None) -> dict[tuple[Value, Value], dict[str, Value]]:
    assert made is not None
    names = [column.name for column in made.columns]
    return {(row[0], row[1]): dict(zip(names, row, strict=True)) for row in made.rows}


def test_every_arm_is_read_at_the_declared_kl_and_is_missing_where_it_did_not_get():
    made = at_kl.sheet(
        shown(
            path("sft", 1, [0.0], [0.1]),
            path("diffro", 1, [0.0, 0.2, 1.2], [0.1, 0.3, 0.8]),
            path("diffro", 2, [0.0, 0.1, 0.3], [0.0, 0.2, 0.6]),
            path("rrpo", 1, [0.0, 0.4], [0.0, 0.4], third_accuracy=[0.9, 0.5], dnsmos=[3.0, 2.0]),
        )
    )
    found = rows(made)
    assert list(found) == [(arm, level) for level in KL_POINTS for arm in ("diffro", "rrpo")], "SFT does not move"
    assert found["diffro", 0.1]["uptake"].mean == pytest.approx((0.2 + 0.2) / 2)  # type: ignore[union-attr]
    assert found["diffro", 0.2]["n"] == 2
    assert found["diffro", 0.8]["n"] == 1
    assert found["diffro", 0.8]["uptake"].mean == pytest.approx(0.6)  # type: ignore[union-attr]
    assert found["rrpo", 0.1]["third_accuracy"].mean == pytest.approx(0.8)  # type: ignore[union-attr]
    assert found["rrpo", 0.2]["dnsmos"].mean == pytest.approx(2.5)  # type: ignore[union-attr]
    assert (found["rrpo", 0.8]["n"], found["rrpo", 0.8]["uptake"].n) == (0, 0)  # type: ignore[union-attr]
    assert made is not None
    assert [column.name for column in made.columns] == ["arm", "kl", "n", "gold", "uptake", "dnsmos", "third_accuracy"]
    assert "| rrpo | 0.8 | 0 | – | – | – | – |" in markdown(made)
    assert made.marks() == {}, "rows of other KL are not ranked with one another"


def test_the_first_passage_counts_and_no_arm_sets_anothers_range():
    kl = [0.0, 0.3, 0.05, 0.5]
    alone = rows(at_kl.sheet(shown(path("diffro", 1, kl, [0.0, 0.3, 0.9, 0.5]))))
    assert alone["diffro", 0.2]["uptake"].mean == pytest.approx(0.2)  # type: ignore[union-attr]
    beside = rows(
        at_kl.sheet(shown(path("diffro", 1, kl, [0.0, 0.3, 0.9, 0.5]), path("ls", 1, [0.0, 0.01], [0.0, 0.0])))
    )
    assert {key: row for key, row in beside.items() if key[0] == "diffro"}.keys() == alone.keys()
    assert beside["diffro", 0.4]["uptake"] == pytest.approx(alone["diffro", 0.4]["uptake"], nan_ok=True)
    assert beside["ls", 0.1]["n"] == 0
    assert not math.isnan(beside["diffro", 0.4]["uptake"].mean)  # type: ignore[union-attr]


def test_without_an_arm_that_is_optimised_there_is_no_table():
    assert at_kl.sheet(shown(path("sft", 1, [0.0], [0.0]))) is None
