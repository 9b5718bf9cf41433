"""Best-of-n: the choice by hand, n = 1 equals the SFT policy, the KL, and the files written."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rrpo.config import OFF, ArmConfig, BestOfConfig, DrawsConfig, OptimizeConfig
from rrpo.experiment import dataflow, measurements
from rrpo.judges.samples import Samples
from rrpo.models.policy import Rollout
from rrpo.optimizers import best_of, loop
from rrpo.optimizers.base import Batch
from rrpo.optimizers.rollout import Models, Prompts
from rrpo.optimizers.scoring import compute_rewards
from rrpo.pipeline.stages import Context
from rrpo.profiles import EMBEDDED, SMOKE
from rrpo.testing.toy_models import PROMPTS, optimize_inputs

DRAWS = DrawsConfig(n=6, prompts=12, final_prompts=PROMPTS, eval_prompts=5, seed=3)
CONFIG = BestOfConfig(reward="bounded", emotion_weight=20.0, content_weight=0.3, eval_prompts=5)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("best_of")
    folders = optimize_inputs(folder / "toy")
    folders["draws"], folders["chosen"] = folder / "draws", folder / "chosen"
    for name in ("draws", "chosen"):
        folders[name].mkdir()
    best_of.draw(DRAWS, folders, folders["draws"], Context())
    best_of.build(CONFIG, folders, folders["chosen"], Context())
    return folders


def test_kl_and_levels_by_hand() -> None:
    assert best_of.kl_of(1) == 0
    assert best_of.kl_of(4) == pytest.approx(math.log(4) - 0.75)
    assert best_of.levels(1) == [1]
    assert best_of.levels(16) == [1, 2, 4, 8, 16]
    assert best_of.levels(6) == [1, 2, 4, 6]


def test_the_chosen_has_the_least_cost_of_the_first_n(inputs: dict[str, Path]) -> None:
    models = Models.load(inputs, "cpu")
    with np.load(inputs["draws"] / best_of.DRAWS) as arrays:
        tokens, lengths, ended = (torch.from_numpy(arrays[name]) for name in ("tokens", "lengths", "ended"))
    prompts = Prompts.load(inputs["eval_prompts"], models).select(torch.arange(12))
    rollouts = [Rollout(tokens[i].long(), lengths[i].long(), ended[i]) for i in range(6)]
    bounded = OptimizeConfig(reward="bounded")
    losses = [compute_rewards(models, Batch(0, prompts, rollout), bounded).losses for rollout in rollouts]
    costs = torch.stack([20 * each["reward_loss"] + 0.3 * each["content_loss"] for each in losses])
    samples = Samples.load(inputs["chosen"], PROMPTS)
    assert samples.steps == [1, 2, 4, 6]
    for n in samples.steps:
        at = samples.at(n)
        assert at.prompt.tolist() == list(range(12 if n == 6 else 5))
        for prompt, sampled, length in zip(at.prompt, at.tokens, at.lengths, strict=True):
            chosen = int(costs[:n, prompt].argmin())
            assert length == int(lengths[chosen, prompt])
            assert sampled[:length].tolist() == tokens[chosen, prompt, :length].tolist()
    assert len({int(costs[:, i].argmin()) for i in range(12)}) > 1


def test_one_of_one_is_the_sft_policy(inputs: dict[str, Path]) -> None:
    """Tokens and measurements equal those of the evaluation at step 0 of any optimization of the seed."""
    models = Models.load(inputs, "cpu")
    config = OptimizeConfig(steps=0, eval_prompts=5, final_prompts=PROMPTS, seed=3)
    _, sft = loop.evaluate(models, Prompts.load(inputs["eval_prompts"], models), config, 0)
    first = Samples.load(inputs["chosen"], PROMPTS).at(1)
    for prompt, tokens, length in zip(first.prompt, first.tokens, first.lengths, strict=True):
        assert tokens[:length].tolist() == sft.tokens[prompt, : sft.lengths[prompt]].tolist()
    assert first.val_logprob == pytest.approx(sft.val_logprob[:5], abs=1e-5)


def test_the_points_carry_the_kl_and_a_proxy_that_rises(inputs: dict[str, Path]) -> None:
    points = pd.read_parquet(inputs["chosen"] / "points.parquet").set_index("step")
    for n, row in points.iterrows():
        assert row["kl_utterance"] == pytest.approx(best_of.kl_of(n), abs=1e-6)
        assert row["sqrt_kl"] ** 2 == pytest.approx(row["kl_token"])
    assert points["proxy_logprob"].loc[4] > points["proxy_logprob"].loc[1]
    scalars = json.loads((inputs["chosen"] / "scalars.json").read_text())
    assert scalars["end_kl_utterance"] == pytest.approx(best_of.kl_of(6))


def test_its_arm_replaces_the_optimisation_stage() -> None:
    """All reward models of a seed share the draws, whose number is bounded; the score reads the chosen samples."""
    arms = [ArmConfig(best_of=64), ArmConfig(best_of=64, regularizers=OFF)]
    one, other = (measurements.core(EMBEDDED, arm, 101, policy=True) for arm in arms)
    assert one["optimized"].name == "best_of_n"
    assert one["optimized"].key != other["optimized"].key
    assert one["optimized"].inputs["draws"].key == other["optimized"].inputs["draws"].key
    assert one["optimized"].inputs["draws"].config.prompts == 300
    assert one["scored"].inputs["samples"].key == one["optimized"].key
    replicated = dataflow.best_of(SMOKE, replace(arms[0], policy_seed=7), 1)
    assert replicated.inputs["draws"].config.seed == 7
    with pytest.raises(ValueError, match=r"best_of must be in \[1, 19200\]"):
        ArmConfig(best_of=0)
