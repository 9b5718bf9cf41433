"""Tables of emotion recognition, on records whose accuracies are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic import Fake, with_part

from ablations.components import factorial
from ablations.stats.statistics import t_interval
from reports.loading import Selection
from reports.reward_models import recognition_effects
from reports.reward_models import sheet as reward_models

SEEDS = 4
GAIN = {"ls": 0.10, "eam": 0.0, "adv": -0.02}


def accuracy(arm: str, seed: int) -> float:
    """Additive over components; seeds differ by a shared level and a small arm-specific residual."""
    gain_sum = sum(gain * (1 + 0.1 * seed) for part, gain in GAIN.items() if with_part(arm, part))
    return 0.5 + 0.03 * seed + gain_sum


def selection() -> Selection:
    records = []
    for arm in factorial():
        for seed in range(SEEDS):
            scalars = {"rm_ua_ESD": accuracy(arm, seed), "rm_wa_ESD": 0.9, "rm_n_ESD": 40.0, "rm_left_out_ESD": 8.0}
            scalars["rm_fidelity_one_own"] = 0.1 * seed
            if seed > 1:
                scalars |= {"rm_ua_own": 0.25, "rm_wa_own": 0.5, "rm_n_own": 10.0 + seed, "rm_left_out_own": 0.0}
            records.append(Fake(arm, seed, pd.DataFrame(), scalars=scalars))
    return Selection("rm", tuple(records), dict.fromkeys(factorial(), SEEDS), (), (SEEDS,))


def test_every_reward_model_has_both_accuracies_on_every_set() -> None:
    sheet = reward_models(selection())
    assert sheet is not None
    row = sheet.row("rrpo")
    assert row["rm_ua_ESD"] == pytest.approx(t_interval([accuracy("rrpo", seed) for seed in range(SEEDS)]))
    assert row["rm_wa_own"] == pytest.approx(t_interval([0.5, 0.5]))
    assert row["rm_fidelity_one_own"] == pytest.approx(t_interval([0.0, 0.1, 0.2, 0.3]))
    (counts,) = (note for note in sheet.notes if note.startswith("WA: "))
    assert "ESD: 40 utterances, 8 excluded" in counts
    assert "own: 12 utterances, 0 excluded" in counts


def test_effects_are_paired_within_seeds() -> None:
    sheet = recognition_effects(selection())
    assert sheet is not None
    ls = sheet.row("ESD: LS, main effect")
    expected = t_interval([GAIN["ls"] * (1 + 0.1 * seed) for seed in range(SEEDS)], 1 - 0.05 / 7)
    assert ls["ua"] == pytest.approx(expected)
    assert str(ls["verdict"]).startswith("better")
    assert sheet.row("ESD: Adv, in RRPO")["verdict"] == "worse (by less than 5 points)"
    assert str(sheet.row("ESD: EAM, main effect")["verdict"]).startswith("not tested")
    assert sheet.row("own: LS, main effect")["verdict"] == "interim", "two of the four seeds have this set"


def test_the_verdict_waits_for_the_planned_seeds_and_the_manipulation_check() -> None:
    early = recognition_effects(replace(selection(), plans=(2 * SEEDS,)))
    assert early is not None
    assert {row[-1] for row in early.rows} == {"interim"}
    complete = selection()
    for record in complete.records:
        record.__dict__["scalars"] = record.scalars | {"rm_ece": 0.2 + 0.001 * np.sin(record.seed)}
    checked = recognition_effects(complete)
    assert checked is not None
    assert checked.row("ESD: LS, main effect")["verdict"] == "better (manipulation check failed)"


def test_folds_have_no_verdict() -> None:
    folds = selection()
    for record in folds.records:
        record.config["profile.manifests.rm_pretrain.digest"] = f'"{record.seed}"'
    sheet = recognition_effects(folds)
    assert sheet is not None
    assert {row[-1] for row in sheet.rows} == {"none (folds)"}


def test_without_a_test_set_there_is_no_table() -> None:
    bare = Selection("rm", (Fake("rrpo", 1, pd.DataFrame()),), {"rrpo": 1}, ())
    assert reward_models(bare) is None
    assert recognition_effects(bare) is None
