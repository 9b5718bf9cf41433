"""GRPO: its contract, advantages and clipping by hand, several updates per batch, and the KL in loss or reward."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from rrpo.optimizers import GRPO, OPTIMIZERS
from rrpo.optimizers.grpo import EPSILON, log_ratio
from rrpo.optimizers.rollout import Models
from rrpo.optimizers.scoring import compute_rewards, sampled_log_probs, score, split
from rrpo.plugins import PluginError
from rrpo.testing.optimizers import OptimizerContract


class TestGRPO(OptimizerContract):
    choice = OPTIMIZERS.choice("grpo")
    steps = 40

    def test_the_clipped_share_is_in_the_curves(self, inputs: dict[str, Path], tmp_path: Path) -> None:
        """Values of the last of two updates: the first cannot clip, the second does if the policy has moved far enough."""
        curves = pd.read_parquet(self.run(inputs, tmp_path / "out", self.config(lr=0.1)) / "curves.parquet")
        assert curves["clipped"].max() > 0
        once = self.config(lr=0.1, optimizer=OPTIMIZERS.choice("grpo", epochs=1))
        assert not pd.read_parquet(self.run(inputs, tmp_path / "once", once) / "curves.parquet")["clipped"].any()

    @pytest.mark.parametrize(("token_mean", "penalty"), [(True, "kl"), (False, "chi2")])
    def test_the_second_updates_loss_is_the_written_formula(
        self, token_mean: bool, penalty: str, models: Models, inputs: dict[str, Path]
    ) -> None:
        """After the policy has moved: the clipped surrogate of each sample, token by token, plus beta times its penalty."""
        optimizer = OPTIMIZERS.choice("grpo", token_mean=token_mean, clip=0.1)
        config = self.config(beta=0.3, penalty=penalty, optimizer=optimizer)
        batch, method = self.batch(models, inputs, config), GRPO(token_mean=token_mean, clip=0.1)
        A = method.advantages(compute_rewards(models, batch, config).cost(config))
        before = {i: part for part in split(models, batch) for i in part.rows.tolist()}
        old = {
            id(part): sampled_log_probs(part.rollout, score(models, part).logits).detach() for part in before.values()
        }
        updates = iter(method.updates(models, batch, config, {}))
        for micro_loss in next(updates):
            assert float(micro_loss.values["clipped"].max()) == 0
        with torch.no_grad():
            for parameter in models.policy.parameters():
                parameter.mul_(1.05)
        ours = sum(float(micro_loss.loss) for micro_loss in next(updates))
        expected = 0.0
        for part in {id(part): part for part in before.values()}.values():
            scores = score(models, part, penalty)
            new, was = sampled_log_probs(part.rollout, scores.logits), old[id(part)]
            start = 0
            penalties = scores.penalty.tolist()
            for row, n, distance in zip(part.rows.tolist(), part.rollout.counts.tolist(), penalties, strict=True):
                loss = 0.3 * distance
                for r in (new - was)[start : start + n].exp().tolist():
                    a = float(A[row])
                    loss -= min(r * a, max(0.9, min(1.1, r)) * a)
                expected += loss / (n if token_mean else 1) / len(A)
                start += n
        assert ours == pytest.approx(expected, rel=1e-4)


class TestGRPOWithTheKLInTheReward(OptimizerContract):
    choice = OPTIMIZERS.choice("grpo", kl_in_reward=True, normalize=False, token_mean=False)
    # as without the KL in the reward, which is 0 in the first batch and if beta is 0, and is no state
    test_it_increases_the_reward = test_arms_share_prompts_and_noise = None
    test_a_non_finite_reward_stops_the_run_before_the_update = None
    test_a_resumed_run_equals_an_uninterrupted_one = None

    def test_beta_weights_the_log_ratio_in_the_cost_and_nothing_in_the_loss(
        self, models: Models, inputs: dict[str, Path]
    ) -> None:
        """One sample at a time, after the policy has moved: the first update's loss is -A per position."""
        with torch.no_grad():
            for parameter in models.policy.parameters():
                parameter.mul_(1.1)
        config = self.config(beta=0.3)
        batch, method = self.batch(models, inputs, config), GRPO(normalize=False)
        rollout, ratios = batch.rollout, []
        for i, n in enumerate(rollout.lengths.tolist()):
            sampled = [*rollout.tokens[i, :n].tolist(), models.policy.codes][: n + int(rollout.ended[i])]
            now, was = (
                model.logits(batch.prompts.prefix[i : i + 1], rollout.tokens[i : i + 1])[0].log_softmax(1).detach()
                for model in (models.policy, models.reference)
            )
            ratios.append(sum(float(now[t, code] - was[t, code]) for t, code in enumerate(sampled)))
        assert log_ratio(models, batch).tolist() == pytest.approx(ratios, rel=1e-4, abs=1e-5)
        A = method.advantages(compute_rewards(models, batch, config).cost(config) + 0.3 * torch.tensor(ratios))
        losses = next(iter(OPTIMIZERS.create(self.choice).updates(models, batch, config, {})))
        expected = -float((A * rollout.counts).mean())
        assert sum(float(micro_loss.loss) for micro_loss in losses) == pytest.approx(expected, rel=1e-4)


def test_advantages_by_hand() -> None:
    """Two prompts, one per column: costs 1, 3 have mean 2 and standard deviation sqrt 2; equal costs have zero advantage."""
    cost = torch.tensor([1.0, 5.0, 3.0, 5.0])
    unit = 1 / (2**0.5 + EPSILON)
    assert GRPO(samples=2).advantages(cost).tolist() == pytest.approx([unit, 0.0, -unit, 0.0])
    assert GRPO(samples=2, normalize=False).advantages(cost).tolist() == pytest.approx([1.0, 0.0, -1.0, 0.0])


def test_options_out_of_range_are_refused() -> None:
    for option, value in (("samples", 1), ("epochs", 0), ("clip", 0.0)):
        with pytest.raises(PluginError, match=f"{option} must be"):
            OPTIMIZERS.choice("grpo", **{option: value})
