"""Measures at declared values of KL, roll-outs and seconds, on curves with known crossings."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from synthetic import Fake

from ablations.rendering.sheet import Sheet, Value, markdown
from reports.at_equal import AXES, sheets
from reports.loading import Selection


def path(label: str, seed: int, kl: list[float], uptake: list[float], **columns: list[float]) -> Fake:
    points = pd.DataFrame({"step": range(len(kl)), "kl_token": kl, "test_accuracy": 0.5, "uptake": uptake} | columns)
    return Fake(label, seed, points)


def shown(*records: Fake) -> Selection:
    return Selection("x", records, dict.fromkeys([record.label for record in records], 1), ())


def table(selection: Selection, name: str = "at_kl") -> Sheet | None:
    return next((sheet for sheet in sheets(selection) if sheet.name == name), None)


def rows(sheet: Sheet | None) -> dict[tuple[Value, Value], dict[str, Value]]:
    assert sheet is not None
    names = [column.name for column in sheet.columns]
    return {(row[0], row[1]): dict(zip(names, row, strict=True)) for row in sheet.rows}


def test_every_arm_is_read_at_the_declared_kl_and_is_missing_where_it_did_not_get():
    sheet = table(
        shown(
            path("sft", 1, [0.0], [0.1]),
            path("diffro", 1, [0.0, 0.2, 1.2], [0.1, 0.3, 0.8]),
            path("diffro", 2, [0.0, 0.1, 0.3], [0.0, 0.2, 0.6]),
            path("rrpo", 1, [0.0, 0.4], [0.0, 0.4], third_accuracy=[0.9, 0.5], dnsmos=[3.0, 2.0]),
        )
    )
    by_arm = rows(sheet)
    reached = AXES["kl"][2][:-1]
    assert list(by_arm) == [(arm, level) for level in reached for arm in ("diffro", "rrpo")], "SFT does not move"
    assert by_arm["diffro", 0.1]["uptake"].mean == pytest.approx((0.2 + 0.2) / 2)  # type: ignore[union-attr]
    assert by_arm["diffro", 0.2]["n"] == 2
    assert by_arm["diffro", 0.8]["n"] == 1
    assert by_arm["diffro", 0.8]["uptake"].mean == pytest.approx(0.6)  # type: ignore[union-attr]
    assert by_arm["rrpo", 0.1]["third_accuracy"].mean == pytest.approx(0.8)  # type: ignore[union-attr]
    assert by_arm["rrpo", 0.2]["dnsmos"].mean == pytest.approx(2.5)  # type: ignore[union-attr]
    assert (by_arm["rrpo", 0.8]["n"], by_arm["rrpo", 0.8]["uptake"].n) == (0, 0)  # type: ignore[union-attr]
    assert sheet is not None
    assert [column.name for column in sheet.columns] == ["arm", "kl", "n", "gold", "uptake", "dnsmos", "third_accuracy"]
    assert "| rrpo | 0.8 | 0 | – | – | – | – |" in markdown(sheet)
    assert sheet.marks() == {}, "rows of other KL are not ranked with one another"


def test_the_first_passage_counts_and_no_arm_sets_anothers_range():
    kl = [0.0, 0.3, 0.05, 0.5]
    alone = rows(table(shown(path("diffro", 1, kl, [0.0, 0.3, 0.9, 0.5]))))
    assert alone["diffro", 0.2]["uptake"].mean == pytest.approx(0.2)  # type: ignore[union-attr]
    beside = rows(table(shown(path("diffro", 1, kl, [0.0, 0.3, 0.9, 0.5]), path("ls", 1, [0.0, 0.01], [0.0, 0.0]))))
    assert {key: row for key, row in beside.items() if key[0] == "diffro"}.keys() == alone.keys()
    assert beside["diffro", 0.4]["uptake"] == pytest.approx(alone["diffro", 0.4]["uptake"], nan_ok=True)
    assert beside["ls", 0.1]["n"] == 0
    assert not math.isnan(beside["diffro", 0.4]["uptake"].mean)  # type: ignore[union-attr]


def test_without_an_arm_that_is_optimised_there_is_no_table():
    assert table(shown(path("sft", 1, [0.0], [0.0]))) is None


def test_at_equal_cost_an_update_costs_its_share_of_the_run():
    """A run of 100 updates of 20 roll-outs in 120 s; another of 50 in 30 s; best-of-n, whose steps are its n, has no cost."""
    run = {"params": {"optimize.steps": "100", "optimize.batch": "20"}, "scalars": {"seconds_optimized": 120.0}}
    short = {"params": {"optimize.steps": "50", "optimize.batch": "20"}, "scalars": {"seconds_optimized": 30.0}}
    points = pd.DataFrame({"step": [0, 100], "kl_token": [0.0, 2.0], "test_accuracy": [0.5, 0.9]})
    half = pd.DataFrame({"step": [0, 50], "kl_token": [0.0, 1.0], "test_accuracy": [0.5, 0.6]})
    chosen = pd.DataFrame({"step": [1, 16], "kl_token": [0.0, 0.15], "test_accuracy": [0.5, 0.9]})
    selection = shown(
        Fake("diffro", 1, points, **run),
        Fake("rm_worst", 1, half, **{"params": short["params"] | {"arm.members": "4", "arm.combination": '"worst"'}}),
        Fake("best_of_16", 1, chosen, scalars={"seconds_optimized": 9.0}),
        Fake("grpo", 1, half, **short),
    )
    by_arm = rows(table(selection, "at_rollouts"))
    assert [level for arm, level in by_arm if arm == "diffro"] == [500, 1000, 2000]
    assert by_arm["diffro", 500]["gold"].mean == pytest.approx(0.6)  # type: ignore[union-attr]
    assert by_arm["diffro", 500]["kl_token"].mean == pytest.approx(0.5)  # type: ignore[union-attr]
    assert by_arm["diffro", 500]["seconds_optimized"].mean == pytest.approx(30)  # type: ignore[union-attr]
    assert by_arm["rm_worst", 500]["rm_calls"].mean == pytest.approx(2000)  # type: ignore[union-attr]
    assert by_arm["grpo", 2000]["n"] == 0
    assert not any(arm == "best_of_16" for arm, _ in by_arm)
    timed = rows(table(selection, "at_seconds"))
    assert timed["diffro", 30]["gold"].mean == pytest.approx(0.6)  # type: ignore[union-attr]
    assert timed["grpo", 30]["gold"].mean == pytest.approx(0.6)  # type: ignore[union-attr]
    assert ("rm_worst", 30) not in timed, "nobody knows how long it took"
    at_kl = rows(table(selection))
    assert at_kl["best_of_16", 0.1]["gold"].mean == pytest.approx(0.5 + 0.4 * 0.1 / 0.15)  # type: ignore[union-attr]
    assert at_kl["best_of_16", 0.1]["rollouts"].n == 0  # type: ignore[union-attr]
    assert at_kl["diffro", 0.4]["rollouts"].mean == pytest.approx(400)  # type: ignore[union-attr]


def test_uptake_of_a_kind_is_that_of_its_own_emotions_samples():
    """At the end every sad sample and a third of the others hum; fearful samples whine no more than others."""
    end = pd.DataFrame(
        {
            "step": 1,
            "target": ["sad", "sad", "angry", "happy", "fearful"],
            "artefact_hum": [True, True, True, False, False],
            "artefact_whine": [False] * 5,
        }
    )
    start = end.assign(step=0, artefact_hum=False)
    points = pd.DataFrame({"step": [0, 1], "kl_token": [0.0, 0.2]})
    selection = shown(Fake("grpo", 1, points, pd.concat([start, end])))
    by_arm = rows(table(selection, "uptake_by_kind"))
    assert by_arm["grpo", 0.2]["uptake_hum"].mean == pytest.approx(1 - 1 / 3)  # type: ignore[union-attr]
    assert by_arm["grpo", 0.1]["uptake_hum"].mean == pytest.approx((1 - 1 / 3) / 2)  # type: ignore[union-attr]
    assert by_arm["grpo", 0.2]["uptake_whine"].mean == 0  # type: ignore[union-attr]
    assert "uptake_click" not in by_arm["grpo", 0.2], "no clicks were looked for"
