"""Outcomes of a record's sample table, computed by hand; NaN if not measured."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from ablations.judges import BUILT_IN, gold, tuning, vetoing
from ablations.outcomes import OUTCOMES, Outcome, clean_success, find, hacked_share, relative_gap, shown
from ablations.tracking.records import Record
from rrpo.errors import InputError

ROWS = [
    # step, target, proxy, test, val, click, silence, phone errors of ten
    (0, "sad", "sad", "sad", "sad", False, False, 0),
    (9, "sad", "sad", "sad", "angry", False, False, 3),  # clean by gold: .3 is the bound
    (9, "sad", "sad", "sad", "sad", False, False, 4),  # too many phone errors
    (9, "sad", "sad", "sad", "sad", True, False, 0),  # a click
    (9, "sad", "angry", "sad", "sad", False, False, 0),  # clean, but no proxy hit
    (9, "sad", "sad", "angry", "sad", False, False, 0),  # gold's argmax is another emotion
]
COLUMNS = ["step", "target", "proxy", "test", "val", "artefact_click", "artefact_silence", "phone_errors"]


def record(samples: pd.DataFrame, **points: list[float]) -> Record:
    record = Record(label="a", seed=1, load=lambda: {"s": 0.5})
    record.__dict__["samples"] = samples
    record.__dict__["points"] = pd.DataFrame({"step": [0, 9]} | points)
    return record


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=COLUMNS).assign(phones=10)


def test_clean_success_and_hacked_share_by_hand(table: pd.DataFrame):
    cell = record(table)
    assert find("clean_success").read(cell) == pytest.approx(2 / 5)
    assert find("hacked_share").read(cell) == pytest.approx(3 / 4)
    assert find("artefacts").read(cell) == pytest.approx(1 / 5)
    curve = find("clean_success").curve
    assert curve(cell) == pytest.approx([1.0, 0.4])


def test_clean_success_by_another_judge(table: pd.DataFrame):
    by = find("clean_success").by
    assert by is not None
    assert by(tuning()).read(record(table)) == pytest.approx(2 / 5)
    table.loc[1, "val"] = "sad"
    assert by(tuning()).read(record(table)) == pytest.approx(3 / 5)
    table.loc[5, "val"] = None
    assert by(tuning()).read(record(table)) == pytest.approx(2 / 4), "among the samples that the judge evaluated"


@pytest.mark.parametrize("missing", ["target", "test", "phones", "phone_errors", "artefact"])
def test_what_needs_a_missing_column_is_not_measured(table: pd.DataFrame, missing: str):
    cell = record(
        table[[name for name in table.columns if not name.startswith(missing) or name == "phone_errors" != missing]]
    )
    for outcome in (clean_success(gold()), hacked_share(gold())):
        assert math.isnan(outcome.read(cell))
        assert np.isnan(outcome.curve(cell)).all()


def test_without_samples_nothing_is_measured_and_points_are_read_at_the_end():
    bare = record(pd.DataFrame(), test_accuracy=[0.5, 0.7], mine=[0.1, 0.2])
    assert math.isnan(find("clean_success").read(bare))
    assert find("gold").read(bare) == 0.7
    assert find("mine").read(bare) == 0.2, "any column of the points"
    assert find("s").read(bare) == 0.5, "or a scalar"
    assert math.isnan(find("none").read(bare))


def test_an_optional_outcome_is_shown_where_a_record_has_it():
    bare = record(pd.DataFrame())
    assert {"clean_success", "phone_error_rate"} <= {outcome.name for outcome in shown([bare])}
    assert {outcome.name for outcome in OUTCOMES} - {outcome.name for outcome in shown([bare])} == {"dnsmos", "plcmos"}
    assert "dnsmos" in {outcome.name for outcome in shown([bare, record(pd.DataFrame(), dnsmos=[3.0, 2.0])])}


def test_one_judge_is_gold_and_another_tunes():
    assert [judge.name for judge in BUILT_IN] == [gold().name, *(judge.name for judge in vetoing())]
    assert tuning() in vetoing()


def test_names_are_unique_and_units_are_known():
    assert len({outcome.name for outcome in OUTCOMES}) == len(OUTCOMES)
    added = Outcome(name="mine", label="mine", read=lambda record: 1.0, unit="plain")
    assert (added.heading, added.difference_unit, added.as_column().unit) == ("mine", "plain", "plain")
    assert (find("gold").heading, find("gold").difference_unit) == ("gold accuracy, %", "gain")


def test_gamma_by_hand():
    """Gap 0, .2, .4 at KL 0, 1, 2: area .4; gold .8, .8, .6: area .8 + .7."""
    assert relative_gap([0, 1, 2], [0.8, 0.8, 0.6], [0.8, 1.0, 1.0]) == pytest.approx(0.4 / 1.5)
    assert relative_gap([0, 2], [0.5, 0.5], [0.5, 0.5]) == 0.0
    assert relative_gap([0, 1, 0.5, 1], [0.5, 0.5, 0.9, 0.5], [0.5, 0.5, 0.1, 0.5]) == 0.0, (
        "a decrease of KL adds nothing"
    )
    assert relative_gap([0, 1, 2], [0.5, math.nan, 0.5], [0.5, 1.0, 0.5]) == 0.0, (
        "checkpoints without gold are left out"
    )
    assert math.isnan(relative_gap([0, 0], [0.5, 0.5], [0.6, 0.6]))
    assert math.isnan(relative_gap([], [], []))


def test_gamma_of_a_record():
    bare = record(pd.DataFrame(), kl_token=[0.0, 2.0], test_accuracy=[0.8, 0.6], proxy_accuracy=[0.8, 1.0])
    assert find("gamma").read(bare) == pytest.approx(0.4 / 1.4)
    assert math.isnan(find("gamma").read(record(pd.DataFrame(), kl_token=[0.0, 2.0])))


def test_variance_of_the_reward_is_that_within_emotions_at_the_start():
    rows = [
        (0, "sad", -1.0),
        (0, "sad", -3.0),
        (0, "angry", -8.0),
        (0, "angry", -8.0),
        (9, "sad", 0.0),
        (9, "sad", 2.0),
    ]
    cell = record(pd.DataFrame(rows, columns=["step", "target", "proxy_logprob"]))
    assert find("reward_variance").read(cell) == pytest.approx(2.0 / 2)
    curve = find("reward_variance").curve
    assert curve(cell) == pytest.approx([1.0, 2.0])
    assert math.isnan(find("reward_variance").read(record(pd.DataFrame())))
    assert not {"gamma", "reward_variance"} & {outcome.name for outcome in shown([cell])}


@pytest.mark.parametrize("name", ["proxy", "gamma", "rollouts"])
def test_a_second_outcome_of_a_name_is_refused(name: str, monkeypatch: pytest.MonkeyPatch):
    other = Outcome(name=name, label="x", read=lambda record: 0.0)
    monkeypatch.setattr("ablations.outcomes.OUTCOMES", [*OUTCOMES, other])
    with pytest.raises(InputError, match=f"several outcomes have the same name\n  got: {name}"):
        shown([])


@pytest.mark.parametrize(("field", "value", "fix"), [("unit", "seconds", "plain"), ("direction", 2, "-1")])
def test_an_outcome_with_an_unknown_unit_or_direction_is_refused(field: str, value: object, fix: str):
    with pytest.raises(InputError, match=rf"outcome 'x': unknown {field}(.|\n)*{fix}"):
        Outcome(name="x", label="x", read=lambda record: 0.0, **{field: value})  # type: ignore[arg-type]
