"""The numbers of the page's interactive chart."""

from __future__ import annotations

import math

import pandas as pd
from synthetic import Fake, record

from reports import explorer
from reports.loading import Selection


def test_every_seed_has_its_outcomes_at_its_checkpoints_and_none_where_nothing_was_measured():
    start = pd.DataFrame({"step": [0], "sqrt_kl": 0.0, "kl_token": 0.0, "test_accuracy": 0.6, "proxy_accuracy": 0.7})
    followed = pd.DataFrame(
        {
            "step": [0, 10, 20],
            "sqrt_kl": [0.0, 0.5, 1.23456],
            "kl_token": [0.0, 0.25, 1.52414],
            "test_accuracy": [0.6, 0.65, 0.55],
            "proxy_accuracy": [0.7, math.nan, 0.98765],
        }
    )
    by_gold = followed.head(2).drop(columns="proxy_accuracy")
    records = (Fake("sft", 3, start), Fake("diffro", 3, followed), Fake("ls", 4, by_gold))
    data = explorer.data(Selection("tiny", records, {"sft": 1, "diffro": 1, "ls": 1}, ()))
    choices = [([part["name"] for part in choice["parts"]], choice["percent"]) for choice in data["outcomes"]]
    assert choices == [(["gold", "proxy"], True), (["gold"], True), (["proxy"], True), (["kl_token"], False)]
    assert [part["dash"] for part in data["outcomes"][0]["parts"]] == ["", explorer.DASHED]
    diffro, ls = data["arms"]
    assert [(arm["label"], arm["shown"], arm["colour"], arm["dash"]) for arm in (diffro, ls)] == [
        ("diffro", True, "currentColor", ""),
        ("ls", False, "#56B4E9", "6 3"),
    ]
    assert diffro["runs"] == [
        {
            "seed": 3,
            "x": {"sqrt_kl": [0.0, 0.5, 1.2346], "step": [0, 10, 20]},
            "y": {"gold": [0.6, 0.65, 0.55], "proxy": [0.7, None, 0.9877], "kl_token": [0.0, 0.25, 1.5241]},
        }
    ]
    assert ls["runs"] == [
        {
            "seed": 4,
            "x": {"sqrt_kl": [0.0, 0.5], "step": [0, 10]},
            "y": {"gold": [0.6, 0.65], "proxy": [None, None], "kl_token": [0.0, 0.25]},
        }
    ]


def test_arms_without_a_style_of_their_own_are_told_apart():
    added = [record(f"mine_{i}", seed, 0.5) for i in range(6) for seed in (1, 2)]
    known = [record(arm, 1, 0.5) for arm in ("diffro", "rrpo", "ls", "eam", "adv", "pretrained", "ls_eam", "diffro_kl")]
    arms = explorer.data(
        Selection("tiny", (*known, *added), dict.fromkeys([r.label for r in (*known, *added)], 1), ())
    )["arms"]
    styles = [(arm["colour"], arm["dash"]) for arm in arms]
    assert len(styles) == 14
    assert len(set(styles)) == len(styles)
