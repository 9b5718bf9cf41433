"""Measures at matched KL, on paths whose crossing is known."""

from __future__ import annotations

import pandas as pd
import pytest
from test_tables import Fake

from reports import matched
from reports.store import Selection


def path(label: str, seed: int, d: list[float], uptake: list[float], **columns: list[float]) -> Fake:
    gold = [0.5] * len(d)
    points = pd.DataFrame({"step": range(len(d)), "sqrt_kl": d, "test_accuracy": gold, "uptake": uptake} | columns)
    return Fake(label, seed, points, scalars={}, params={})


def shown(*records: Fake) -> Selection:
    return Selection("x", records, dict.fromkeys([record.label for record in records], 1), ())


def test_arms_are_compared_where_the_slowest_ends():
    made = matched.sheet(
        shown(
            path("diffro", 1, [0.0, 1.0, 2.0], [0.1, 0.2, 0.6]),
            path("rrpo", 1, [0.0, 0.5, 1.5], [0.1, 0.2, 0.4], third_accuracy=[0.9, float("nan"), 0.6]),
        )
    )
    assert made is not None
    diffro, rrpo = made.row("diffro"), made.row("rrpo")
    assert (diffro["d"].mean, rrpo["d"].mean) == (1.5, 1.5)  # type: ignore[union-attr]
    assert diffro["uptake"].mean == pytest.approx(0.4)  # type: ignore[union-attr]
    assert rrpo["uptake"].mean == pytest.approx(0.4)  # type: ignore[union-attr]
    assert rrpo["third_accuracy"].mean == 0.6  # type: ignore[union-attr]
    assert diffro["third_accuracy"].n == 0  # type: ignore[union-attr]
    assert [column.name for column in made.columns] == ["arm", "n", "d", "gold", "uptake", "third_accuracy"]


def test_every_seed_and_setting_has_a_range_of_its_own():
    made = matched.sheet(
        shown(
            path("diffro@a", 1, [0.0, 2.0], [0.0, 0.2]),
            path("rrpo@a", 1, [0.0, 1.0], [0.0, 0.3]),
            path("diffro@b", 1, [0.0, 4.0], [0.0, 0.4]),
        )
    )
    assert made is not None
    assert [made.row(f"diffro@{place}")["uptake"].mean for place in "ab"] == [0.1, 0.4]  # type: ignore[union-attr]


def test_what_did_not_move_has_no_row():
    moved = [path(arm, 1, [0.0, 2.0], [0.0, 0.2]) for arm in ("diffro", "ls")]
    made = matched.sheet(shown(*moved, path("sft", 1, [0.0], [0.0]), path("rrpo", 1, [0.0, 0.01], [0.0, 0.9])))
    assert made is not None
    assert [row[0] for row in made.rows] == ["diffro", "ls"]
    assert matched.sheet(shown(path("sft", 1, [0.0], [0.0]))) is None
