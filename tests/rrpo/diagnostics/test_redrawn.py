"""Changes of the reward with the rest held and redrawn, where both are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rrpo.config import PolicyConfig
from rrpo.diagnostics.redrawn import compare, forcing
from rrpo.masking import valid_mask
from rrpo.models.policy import Policy
from rrpo.optimizers.rollout import Prompts
from rrpo.seeding import uniform

CODES, B = 6, 40
PROMPTS = Prompts(torch.tensor([[2, 3, 1, 4]] * B), torch.zeros(B, dtype=torch.long), torch.arange(B) % 3, [("a",)] * B)


class LinearCodec:
    """One frame per token, linear in its row."""

    table = torch.randn(CODES, 3, generator=torch.Generator().manual_seed(1))

    def decode(self, tokens: Tensor, lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        rows = tokens if tokens.is_floating_point() else functional.one_hot(tokens, CODES).float()
        F = rows @ self.table
        return F * valid_mask(lengths, F.shape[1])[..., None], lengths

    vocabulary = CODES


def policy(history: float) -> Policy:
    """Return a policy with six codes; ``history`` is the strength of a token's effect on later tokens."""
    torch.manual_seed(0)
    symbols = (*Policy.SPECIALS, "<e>", "<s>", "a")
    untrained = Policy(PolicyConfig(dim=16, layers=1, heads=2, max_tokens=9), symbols, codes=CODES).eval()
    with torch.no_grad():
        untrained.speech_embedding.weight.mul_(history)
        untrained.llm_decoder.weight.mul_(20.0)
    return untrained.requires_grad_(False)


def linear(F: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
    """Return the sum of one channel over the utterance."""
    return F[torch.arange(len(F)), :, target].sum(1)


def test_forced_noise_draws_the_tokens() -> None:
    """For any original noise, up to the end of a row, which is not forced."""
    prompts, model = PROMPTS, policy(1.0)
    rollout = model.sample(prompts.prefix, uniform((9, B), 3, "x"))
    forced = forcing(model.logits(prompts.prefix, rollout.tokens)[:, :-1], rollout.tokens)
    rest = torch.ones(9 - len(forced), B)
    again = model.sample(prompts.prefix, torch.cat([forced, rest]))
    for row, n in enumerate(rollout.lengths.tolist()):
        assert again.tokens[row, :n].tolist() == rollout.tokens[row, :n].tolist()


def test_without_an_influence_on_later_tokens_both_changes_are_as_predicted() -> None:
    """The reward is linear in the tokens, and later tokens do not depend on them: continuations do not differ otherwise."""
    scalars = compare(policy(0.0), LinearCodec(), linear, PROMPTS, 1, 3)
    assert scalars["swap_held"] == pytest.approx(1.0, abs=1e-4)
    assert scalars["swap_redrawn"] == pytest.approx(1.0, abs=1e-4)
    assert scalars["swap_reliability"] == pytest.approx(1.0, abs=1e-4)
    assert scalars["swap_spread_redrawn"] == pytest.approx(scalars["swap_spread_held"], rel=1e-4)


def test_with_it_the_rest_makes_the_larger_change() -> None:
    """The prediction for the token itself stays exact; its effect on other tokens is not included."""
    scalars = compare(policy(3.0), LinearCodec(), linear, PROMPTS, 1, 8)
    assert scalars["swap_held"] == pytest.approx(1.0, abs=1e-4)
    assert scalars["swap_redrawn"] < 0.95
    assert 0 < scalars["swap_reliability"] < 1
    assert scalars["swap_spread_redrawn"] > scalars["swap_spread_held"]
