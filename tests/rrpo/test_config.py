"""Values out of range are rejected on construction; equal configs have equal keys."""

from dataclasses import replace
from typing import Any

import pytest

from rrpo.config import OFF, ArmConfig, RegularizerConfig
from rrpo.corpus.config import EMOTIONS, WorldConfig
from rrpo.identity import content_hash


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("epsilon", value) for value in (-0.1, 1.0, float("nan"))),
        *(("mix_probability", value) for value in (-0.1, 1.1)),
        *(("mix_db_low", value) for value in (11.0, float("-inf"))),
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
    assert isinstance(ArmConfig(steps=3).steps, int)


def test_neutral_alone_may_join_the_emotions() -> None:
    assert WorldConfig(emotions=(*EMOTIONS, "neutral")).emotions[-1] == "neutral"
    for emotions in (("neutral", *EMOTIONS), EMOTIONS[:4], (*EMOTIONS, "bored")):
        with pytest.raises(ValueError, match="emotions must be"):
            WorldConfig(emotions=emotions)
