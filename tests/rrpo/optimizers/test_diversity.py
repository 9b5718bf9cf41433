"""Diversity by hand; a deterministic policy has none."""

import pytest
import torch

from rrpo.config import PolicyConfig
from rrpo.models.policy import Policy
from rrpo.optimizers.diversity import pairwise_distance, within_prompt_diversity


def test_pairwise_distance_by_hand() -> None:
    same, other = ["a", "b", "c", "d"], ["a", "x", "c"]  # one substitution, one deletion of four
    assert pairwise_distance([[same, same, same]]) == 0
    assert pairwise_distance([[same, other]]) == pytest.approx(2 / 4)
    assert pairwise_distance([[same, same, other]]) == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert pairwise_distance([[same, same], [same, []]]) == pytest.approx(0.5)
    assert pairwise_distance([[[], []]]) == 0


def test_a_collapsed_policy_has_none_and_a_fresh_one_has_much() -> None:
    torch.manual_seed(0)
    symbols = [*Policy.SPECIALS, "<happy>", "<ben>", "a", "b"]
    policy = Policy(PolicyConfig(dim=16, layers=1, heads=2, max_tokens=12), symbols, 25).eval()
    prefix = policy.prefix_ids([("a",), ("b", "a")], ["ben", "ben"], ["happy", "happy"])
    fresh = within_prompt_diversity(policy, prefix, 0)
    assert 0.5 < fresh <= 1
    assert fresh == within_prompt_diversity(policy, prefix, 0)
    assert fresh != within_prompt_diversity(policy, prefix, 1)
    with torch.no_grad():
        policy.llm_decoder.weight.zero_()
        policy.llm_decoder.bias.fill_(-100.0)[3] = 100.0
    assert within_prompt_diversity(policy, prefix, 0) == 0
