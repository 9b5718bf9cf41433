"""Repetition-aware sampling: its distribution by hand, and against the published procedure."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rrpo.corpus.prompts import Prompt
from rrpo.cosyvoice import standin
from rrpo.cosyvoice.policy import CosyVoice2Policy
from rrpo.cosyvoice.sampling import NOTHING, RepetitionAware
from rrpo.seeding import uniform

P = torch.tensor([[0.1, 0.5, 0.05, 0.25, 0.1]])


def recent(*tokens: int, width: int = 10) -> torch.Tensor:
    return torch.tensor([list(tokens) + [NOTHING] * (width - len(tokens))])


def test_the_nucleus_by_hand() -> None:
    """Sorted .5, .25, .1, .1, .05: the mass before the third is .75 < .8, before the fourth .85, so three are kept."""
    q = RepetitionAware().probabilities(P.log(), recent())
    assert q[0].tolist() == pytest.approx([0.1 / 0.85, 0.5 / 0.85, 0.0, 0.25 / 0.85, 0.0])
    q = RepetitionAware(top_k=1).probabilities(P.log(), recent())
    assert q[0].tolist() == pytest.approx([0, 1, 0, 0, 0])


def test_a_repeated_token_gives_its_mass_to_the_whole_distribution() -> None:
    """Token 1 has occurred, so its .5/.85 are redistributed by p; with tau .2 one occurrence is not enough."""
    rho = 0.5 / 0.85
    expected = [0.1 / 0.85 + rho * 0.1, rho * 0.5, rho * 0.05, 0.25 / 0.85 + rho * 0.25, rho * 0.1]
    q = RepetitionAware().probabilities(P.log(), recent(1))
    assert q[0].tolist() == pytest.approx(expected)
    assert float(q.sum()) == pytest.approx(1.0)
    once = RepetitionAware(tau_r=0.2)
    assert torch.equal(once.probabilities(P.log(), recent(1)), once.probabilities(P.log(), recent()))
    assert not torch.equal(once.probabilities(P.log(), recent(1, 1)), once.probabilities(P.log(), recent()))


def test_q_is_what_two_draws_give() -> None:
    """The procedure as published: draw from the nucleus; if repeated, draw from everything. 40,000 times."""
    draw = np.random.default_rng(0)
    p = P[0].double().numpy()
    nucleus = np.array([0.1, 0.5, 0.0, 0.25, 0.0]) / 0.85
    first = draw.choice(5, 40_000, p=nucleus)
    second = draw.choice(5, 40_000, p=p / p.sum())
    tokens = np.where(np.isin(first, [1, 3]), second, first)
    q = RepetitionAware().probabilities(P.log(), recent(3, 2, 1))
    assert np.bincount(tokens, minlength=5) / 40_000 == pytest.approx(q[0].numpy(), abs=0.01)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return standin.write(tmp_path_factory.mktemp("cosyvoice2"), eos=20.0)


def asked(policy: CosyVoice2Policy, *texts: str) -> torch.Tensor:
    return policy.prompt_ids([Prompt(id="", text=t, phones=(), speaker="", emotion="sad") for t in texts])


def test_lengths_lie_between_the_ratios(release: Path) -> None:
    """Eos has almost all the mass and would end at once: the minimum is 2 tokens per text token, the maximum 3 without eos."""
    policy = CosyVoice2Policy.load(release)
    prefix = asked(policy, "the cat", "go go go go")
    text = policy.text_lengths(prefix)
    short = RepetitionAware().sample(policy, prefix, uniform((60, 2), 0, "ras"))
    assert torch.equal(short.lengths, 2 * text)
    assert short.ended.all()
    with torch.no_grad():
        policy.llm_decoder.bias[policy.eos] = -1e4
    longer = RepetitionAware(max_ratio=3.0).sample(policy, prefix, uniform((60, 2), 0, "ras"))
    assert torch.equal(longer.lengths, 3 * text)
    assert not longer.ended.any()
    cut = RepetitionAware().sample(policy, prefix, uniform((5, 2), 0, "ras"))
    assert cut.lengths.tolist() == [5, 5]


def test_nothing_is_said_twice_within_the_window_where_the_nucleus_is_narrow(release: Path) -> None:
    """With one token in the nucleus, plain nucleus sampling would repeat it forever; samples depend only on the noise."""
    policy = CosyVoice2Policy.load(release)
    with torch.no_grad():
        policy.llm_decoder.bias[policy.eos] = -1e4
        policy.llm_decoder.bias[7] = 8.0
    noise = uniform((30, 1), 0, "ras")
    prefix = asked(policy, "the cat sat on the mat")
    tokens = RepetitionAware(top_k=1).sample(policy, prefix, noise).tokens[0].tolist()
    assert tokens[0] == 7
    assert len(set(tokens)) > len(tokens) / 2
    torch.manual_seed(9)
    assert RepetitionAware(top_k=1).sample(policy, prefix, noise).tokens[0].tolist() == tokens
