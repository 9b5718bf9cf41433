"""Contract tests of a policy: `PolicyContract`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F_

from rrpo.corpus.prompts import Prompt
from rrpo.masking import with_eos
from rrpo.models.policy import Rollout
from rrpo.models.protocols import TokenPolicy
from rrpo.seeding import uniform
from rrpo.testing.toy_models import toy_prompts

TOLERANCE = 1e-4
"""Tolerance for probabilities and logits."""


class PolicyContract:
    """Subclass it as ``Test...`` and set a factory of a small policy: ``make = staticmethod(my_policy)``."""

    make: ClassVar[Callable[[], TokenPolicy]]
    """Returns a policy in evaluation mode, the same on every call."""
    prompts: ClassVar[list[Prompt]] = toy_prompts()[:6]
    """Prompts that it knows, of unequal lengths."""

    @pytest.fixture
    def policy(self) -> TokenPolicy:
        """Return a new policy."""
        return type(self).make()

    def sampled(self, policy: TokenPolicy) -> tuple[torch.Tensor, torch.Tensor, Rollout]:
        """Return prefixes of the prompts, the noise, and the roll-outs."""
        prefix = policy.prompt_ids(self.prompts)
        noise = uniform((policy.max_tokens, len(prefix)), 0, "policy contract", device=prefix.device)
        return prefix, noise, policy.sample(prefix, noise)

    def test_prefixes_are_padded_on_the_left(self, policy: TokenPolicy) -> None:
        prefix = policy.prompt_ids(self.prompts)
        assert prefix.shape[0] == len(self.prompts)
        for row, prompt in zip(prefix, self.prompts, strict=True):
            (alone,) = policy.prompt_ids([prompt])
            assert bool((alone != 0).all()), "0 is reserved for padding"
            assert torch.equal(row[len(row) - len(alone) :], alone)
            assert not row[: len(row) - len(alone)].any()

    def test_an_unknown_emotion_is_rejected(self, policy: TokenPolicy) -> None:
        with pytest.raises(ValueError, match="no-such-emotion"):
            policy.prompt_ids([replace(self.prompts[0], emotion="no-such-emotion")])

    def test_rollouts_contain_valid_tokens(self, policy: TokenPolicy) -> None:
        """Roll-outs contain V codes, at least one and at most the maximum; a truncated sample has the maximum."""
        _, _, rollout = self.sampled(policy)
        assert not rollout.tokens.requires_grad
        assert rollout.tokens.shape == (len(self.prompts), int(rollout.lengths.max()))
        assert 0 <= int(rollout.tokens.min()) <= int(rollout.tokens.max()) < policy.codes
        assert int(rollout.lengths.min()) >= 1, "eos is never the first token"
        assert torch.equal(rollout.ended, rollout.lengths < policy.max_tokens)

    def test_samples_follow_the_distribution_of_the_logits(self, policy: TokenPolicy) -> None:
        """Each token's noise lies within its interval of the cumulative distribution."""
        prefix, noise, rollout = self.sampled(policy)
        cdf = policy.logits(prefix, rollout.tokens).softmax(-1).cumsum(-1)
        tokens = with_eos(rollout.tokens, rollout.lengths, policy.codes)
        uniforms = F_.pad(noise.T, (0, 1))[:, : tokens.shape[1]]
        upper = cdf.gather(2, tokens[..., None])[..., 0]
        lower = F_.pad(cdf, (1, 0)).gather(2, tokens[..., None])[..., 0]
        inside = (lower - TOLERANCE <= uniforms) & (uniforms <= upper + TOLERANCE)
        assert bool(inside[rollout.scored].all()), "samples do not follow the logits"

    def test_the_same_noise_gives_the_same_samples(self, policy: TokenPolicy) -> None:
        """Samples do not depend on the global generator or on the other rows of the batch."""
        torch.manual_seed(1)
        prefix, noise, rollout = self.sampled(policy)
        torch.manual_seed(2)
        reordered = policy.sample(prefix.flip(0), noise.flip(1))
        assert torch.equal(reordered.lengths.flip(0), rollout.lengths)
        assert torch.equal(reordered.tokens.flip(0), rollout.tokens)

    def test_logits_do_not_depend_on_padding_or_neighbours(self, policy: TokenPolicy) -> None:
        prefix, _, rollout = self.sampled(policy)
        together = policy.logits(prefix, rollout.tokens)
        assert together.shape == (len(prefix), rollout.tokens.shape[1] + 1, policy.codes + 1)
        for row, (prompt, length) in enumerate(zip(self.prompts, rollout.lengths.tolist(), strict=True)):
            alone = policy.logits(policy.prompt_ids([prompt]), rollout.tokens[row : row + 1, :length])
            assert torch.allclose(together[row, : length + 1].softmax(-1), alone[0].softmax(-1), atol=TOLERANCE)

    def test_packed_logits_are_the_first_of_each_row(self, policy: TokenPolicy) -> None:
        prefix, _, rollout = self.sampled(policy)
        logits = policy.logits(prefix, rollout.tokens)
        packed = policy.packed_logits(prefix, rollout.tokens, rollout.counts)
        assert torch.allclose(packed, logits[rollout.scored], rtol=TOLERANCE, atol=TOLERANCE)

    def test_logits_have_a_gradient(self, policy: TokenPolicy) -> None:
        prefix, _, rollout = self.sampled(policy)
        policy.logits(prefix, rollout.tokens).log_softmax(-1)[..., 0].sum().backward()
        assert any(p.grad is not None and bool((p.grad != 0).any()) for p in policy.parameters())
