"""Arms and sweeps of guided decoding, and what is read off them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ablations.grids import GRIDS
from ablations.guidance import by_setting, profile, rank_correlations
from ablations.guided_arms import ALPHAS, CLASSIFIER_GAMMAS, GAMMAS, guided_arms, sweeps
from ablations.judges import gold
from ablations.tracking.records import Record
from rrpo.pipeline.dataflow import SFT
from rrpo.profiles import PROFILES


def test_every_arm_is_the_sft_policy_with_a_guidance() -> None:
    for label, arm in (guided_arms() | sweeps()).items():
        assert arm.guidance is not None, label
        assert (arm.steps, arm.finetune, arm.regularizers) == (0, False, SFT.regularizers), label
        assert (arm.tag_dropout > 0) == (arm.guidance.name != "mixture"), label


def test_sweeps_share_their_stages() -> None:
    """Two SFT policies, one classifier; a setting that two sweeps have in common is one stage."""
    cells = {cell.label: cell for cell in GRIDS["guidance"].cells(PROFILES["quick"], [1000])}
    optimized = {label: cell.stages["optimized"] for label, cell in cells.items()}
    assert len(cells) == 1 + len(GAMMAS) + len(CLASSIFIER_GAMMAS) + len(ALPHAS) + 3
    assert len({stage.inputs["guided"].key for label, stage in optimized.items() if label != "sft"}) == 2
    classifiers = {s.inputs["classifier"].key for label, s in optimized.items() if label.startswith("emodiff")}
    assert len(classifiers) == 1
    assert optimized["emodiff@gamma4"].key == optimized["emodiff@alpha1"].key
    assert len({cell.hash for cell in cells.values()}) == len(cells)
    assert all("intensity" in cell.optional for label, cell in cells.items() if label != "sft")
    assert "intensity" not in cells["sft"].optional


def table(probabilities: list[float], intensity: list[float], errors: list[int]) -> pd.DataFrame:
    columns = {"step": 0, "prompt": range(len(errors)), "phone_errors": errors, "phones": 10, "intensity": intensity}
    return pd.DataFrame(
        columns | {gold().logprob: np.log(probabilities), "target": ["happy", "sad"], "heard_sad": [0.2, 0.7]}
    )


def test_rank_correlations_of_intensity() -> None:
    """The judge follows alpha in every sample; the acoustics only where the phones are understood."""
    tables = {
        0.0: table([0.1, 0.2], [0.1, 9.0], [0, 9]),
        0.5: table([0.4, 0.3], [0.2, 0.5], [0, 9]),
        1.0: table([0.8, 0.9], [0.3, 0.1], [0, 9]),
    }
    found = rank_correlations(tables)
    assert found["gold's probability, phones understood"] == pytest.approx(1.0)
    assert found["acoustic intensity, phones understood"] == pytest.approx(1.0)
    assert found["gold's probability"] == pytest.approx(0.956, abs=1e-3), (
        "alpha has ties, the samples none: sqrt(32 / 35)"
    )
    assert found["acoustic intensity"] < 0


def test_the_profile_of_a_mixture_is_of_prompts_that_ask_for_another_emotion() -> None:
    assert profile(table([0.5, 0.9], [0, 0], [0, 0]), "sad") == pytest.approx((0.5, 0.2))


def test_a_sweeps_settings_are_found_by_their_labels() -> None:
    class Stored(Record):
        samples = table([0.5, 0.9], [0, 0], [0, 0])  # type: ignore[assignment]

    common = {"seed": 1, "cell_hash": "", "arm_hash": "", "world_hash": "", "profile": "quick", "scalars": {}}
    records = [
        Stored(label=label, **common) for label in ("sft", "emodiff@alpha0.25", "emodiff@gamma2", "emodiff@alpha1")
    ]
    assert list(by_setting(records, "alpha")[1]) == [0.25, 1.0]
    assert list(by_setting(records, "gamma")[1]) == [2.0]
