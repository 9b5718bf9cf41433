"""REINFORCE: its contract, its gradient by hand, and an arm that uses it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rrpo.optimizers import OPTIMIZERS
from rrpo.optimizers.rollout import Models
from rrpo.plugins import PluginError
from rrpo.testing.optimizers import OptimizerContract


class TestReinforce(OptimizerContract):
    choice = OPTIMIZERS.choice("reinforce", samples=4)

    @pytest.mark.parametrize(("penalty", "reward"), [("kl", "hard_ce"), ("chi2", "bounded")])
    def test_the_gradient_is_the_written_formula(
        self, penalty: str, reward: str, models: Models, inputs: dict[str, Path]
    ) -> None:
        """For each sample, after the policy has moved: minus its reward above the mean of the prompt's three others, times the
        gradient of log p; plus beta times that of the penalty."""
        with torch.no_grad():
            for parameter in models.policy.parameters():
                parameter.mul_(1.1)
        config = self.config(content_weight=0.3, beta=0.1, penalty=penalty, reward=reward)
        batch = self.batch(models, inputs, config)
        prompts_, rollout = batch.prompts, batch.rollout
        costs, log_p, penalties = [], [], []
        for i, n in enumerate(rollout.lengths.tolist()):
            tokens, scored = rollout.tokens[i : i + 1, :n], n + int(rollout.ended[i])
            F, frames = models.codec.decode(tokens, rollout.lengths[i : i + 1], prompts_.speaker[i : i + 1])
            probability = models.reward_model(F, frames).softmax(1)[0, prompts_.target[i]]
            cost = -probability if reward == "bounded" else -probability.log()
            costs.append((cost + 0.3 * models.recogniser.ctc_loss(F, frames, [prompts_.phones[i]])[0]).item())
            both = (m.logits(prompts_.prefix[i : i + 1], tokens)[0, :scored] for m in (models.policy, models.reference))
            p, q = (logits.log_softmax(1) for logits in both)
            sampled = [*tokens[0].tolist(), models.policy.codes][:scored]
            log_p.append(sum(p[t, code] for t, code in enumerate(sampled)))
            distances = (p.exp() * (p - q)).sum(1) if penalty == "kl" else (2 * p - q).exp().sum(1) - 1
            penalties.append(distances.sum())
        prompts = len(costs) // 4
        total = torch.zeros(())
        for i, cost in enumerate(costs):
            others = [costs[j] for j in range(len(costs)) if j != i and j % prompts == i % prompts]
            total = total + (0.1 * penalties[i] - (sum(others) / 3 - cost) * log_p[i]) / len(costs)
        written = torch.autograd.grad(total, list(models.policy.parameters()), allow_unused=True)  # type: ignore[arg-type]
        ours = self.gradient(models, inputs, config)
        expected = torch.cat(
            [
                (torch.zeros_like(p) if g is None else g).flatten()
                for p, g in zip(models.policy.parameters(), written, strict=True)
            ]
        )
        assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-5)


def test_one_sample_has_no_others() -> None:
    with pytest.raises(PluginError, match=r"samples must be in \[2, inf\), got 1"):
        OPTIMIZERS.choice("reinforce", samples=1)
