"""Values out of range are rejected on construction; equal configs have equal keys."""

from dataclasses import replace
from typing import Any

import pytest

from rrpo.config import (
    OFF,
    ArmConfig,
    CodecConfig,
    FinetuneConfig,
    GradientsConfig,
    OptimizeConfig,
    PolicyConfig,
    PretrainConfig,
    RegularizerConfig,
    RewardModelConfig,
    SftConfig,
)
from rrpo.corpus.config import EMOTIONS, WorldConfig
from rrpo.identity import content_hash
from rrpo.judges.config import FidelityConfig
from rrpo.profiles import EMBEDDED, SMOKE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("epsilon", value) for value in (-0.1, 1.0, float("nan"))),
        *(("mix_probability", value) for value in (-0.1, 1.1)),
        ("mix_db_low", float("-inf")),
        ("mix_db_high", float("inf")),
        *(("alpha", value) for value in (-1.0, float("inf"))),
        *(("epsilon_adv", value) for value in (-1.0, float("inf"))),
        ("adv_norm", "l2"),
    ],
)
def test_a_regulariser_out_of_its_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be .*, got "):
        RegularizerConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rm_data", "orcale"),
        ("reward", "soft"),
        ("content_weight", -0.1),
        ("steps", -1),
        *(("shortcut", value) for value in (-0.1, 1.1)),
        ("rater_noise", -1.0),
        *((name, value) for name in ("rm_lr", "lr") for value in (0.0, float("inf"))),
        ("beta", -0.1),
        *(("tau", value) for value in ((), (1.0, 0.0))),
    ],
)
def test_an_arm_out_of_its_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be .*, got "):
        ArmConfig(**{name: value})


def test_a_whole_number_is_the_same_value() -> None:
    assert content_hash(replace(OFF, alpha=1)) == content_hash(replace(OFF, alpha=1.0))
    assert content_hash(ArmConfig(lr=1, steps=3)) == content_hash(ArmConfig(lr=1.0, steps=3))
    assert content_hash(ArmConfig(tau=(2, 1))) == content_hash(ArmConfig(tau=(2.0, 1.0)))
    assert isinstance(ArmConfig(steps=3).steps, int)


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (FinetuneConfig, {"steps": -1}, r"steps must be in \[0, inf\), got -1"),
        (PretrainConfig, {"batch": 0}, r"batch must be in \[1, inf\), got 0"),
        (SftConfig, {"lr": 0.0}, r"lr must be in \(0, inf\), got 0.0"),
        (OptimizeConfig, {"grad_clip": -1.0}, r"grad_clip must be in \(0, inf\), got -1.0"),
        (FidelityConfig, {"share": 2}, r"share must be in \(0, 1\], got 2"),
        (CodecConfig, {"levels": (8, 8, 8, 5, 5, 5)}, r"levels must have a product of at most 32768, got levels=\(8,"),
        (RewardModelConfig, {"subsample": 3}, r"subsample must be a power of two \(1, 2, 4 or 8\), got subsample=3"),
        (RewardModelConfig, {"dim": 20}, "dim must be a multiple of 2 x heads = 8, got dim=20"),
        (PolicyConfig, {"heads": 3}, "dim must be a multiple of 2 x heads = 6, got dim=128"),
        (GradientsConfig, {"batches": 1}, r"batches must be in \[2, inf\), got 1"),
        (RegularizerConfig, {"mix_db_low": 11.0}, "mix_db_low must not exceed mix_db_high, got mix_db_low=11.0"),
        (ArmConfig, {"rounds": 1, "best_of": 4}, "rounds above 0 need finetune and an optimized policy"),
        (ArmConfig, {"rounds": 1, "finetune": False}, "rounds above 0 need finetune and an optimized policy"),
        (ArmConfig, {"best_of": 4, "tag_dropout": 0.1}, "best_of excludes guidance, tag_dropout and style_weight"),
        (ArmConfig, {"best_of": 4, "match_gradient": True}, "match_gradient needs an optimized policy"),
        (ArmConfig, {"combination": "mean"}, "combination must be one of .*, got combination='mean'"),
        (ArmConfig, {"variance_penalty": 1.0}, "variance_penalty needs combination='mean', got variance_penalty=1.0"),
    ],
)
def test_what_cannot_be_computed_is_refused(config: type, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        config(**fields)


@pytest.mark.parametrize(
    ("field", "value"), [("shortcut", 1.5), ("annotated", 0), ("rater_noise", -0.1), ("eval_prompts", 0)]
)
def test_a_profile_out_of_its_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be in "):
        replace(SMOKE, **{field: value})


def test_profiles_are_compared_by_identity() -> None:
    assert EMBEDDED != SMOKE
    assert len({EMBEDDED, SMOKE, replace(SMOKE)}) == 3


def test_neutral_alone_may_join_the_emotions() -> None:
    assert WorldConfig(emotions=(*EMOTIONS, "neutral")).emotions[-1] == "neutral"
    for emotions in (("neutral", *EMOTIONS), EMOTIONS[:4], (*EMOTIONS, "bored")):
        with pytest.raises(ValueError, match="emotions must be"):
            WorldConfig(emotions=emotions)
