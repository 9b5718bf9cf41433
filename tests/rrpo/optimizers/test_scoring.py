"""The penalties on the distance to the reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rrpo.config import OptimizeConfig
from rrpo.optimizers.rollout import Models, Prompts
from rrpo.optimizers.scoring import roll_out, score, split
from rrpo.testing.toy_models import optimize_inputs


def test_chi_squared_is_the_written_sum_with_its_gradient(tmp_path: Path) -> None:
    """``sum_v p^2 / q - 1`` over every scored position, differentiated by autograd; 0 while the policy is the reference."""
    inputs = optimize_inputs(tmp_path / "toy")
    models = Models.load(inputs, "cpu")
    batch = roll_out(models, Prompts.load(inputs["rl_prompts"], models).select(torch.arange(4)), OptimizeConfig(), 0)
    (part,) = split(models, batch)
    assert float(score(models, part, "chi2").penalty.detach().abs().max()) < 1e-4
    with torch.no_grad():
        for parameter in models.policy.parameters():
            parameter.mul_(1.1)
    scores = score(models, part, "chi2")
    arguments = part.prompts.prefix, part.rollout.tokens, part.rollout.counts
    p, q = (model.packed_logits(*arguments).softmax(1) for model in (models.policy, models.reference))
    written = part.rollout.sums((p.square() / q.clamp(min=1e-30)).sum(1) - 1)
    assert torch.allclose(scores.penalty, written, rtol=1e-4, atol=1e-4)
    assert float(written.detach().min()) > 0
    parameters = list(models.policy.parameters())
    ours, expected = (torch.autograd.grad(x.sum(), parameters, allow_unused=True) for x in (scores.penalty, written))
    for a, b in zip(ours, expected, strict=True):
        assert (a is None and b is None) or torch.allclose(a, b, rtol=1e-3, atol=1e-4)
    kl = score(models, part)
    assert torch.equal(kl.penalty, kl.kl)
    assert not torch.allclose(kl.kl, scores.penalty)


def test_an_unknown_penalty_is_refused() -> None:
    with pytest.raises(ValueError, match="penalty must be one of kl, chi2, got 'l2'"):
        OptimizeConfig(penalty="l2")
