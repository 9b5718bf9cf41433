"""The token language model: cached and parallel logits agree, padding and neighbors do not matter, KL to a reference."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rrpo.config import PolicyConfig
from rrpo.models.decoding import Decoder
from rrpo.models.policy import Policy, Rollout, inverse_cdf, runs, token_entropy, token_kl
from rrpo.models.transformer import fuse
from rrpo.seeding import uniform
from rrpo.testing.policies import PolicyContract
from rrpo.testing.toy_models import toy_policy

PHONES = [("a", "b", "c"), ("c",), ("b", "a", "a", "c", "b")]


class TestPolicy(PolicyContract):
    make = staticmethod(toy_policy)


@pytest.fixture(scope="module")
def policy() -> Policy:
    torch.manual_seed(0)
    config = PolicyConfig(dim=32, layers=2, heads=2, max_tokens=30)
    symbols = [*Policy.SPECIALS, "<happy>", "<sad>", "<s1>", "<s2>", "a", "b", "c"]
    return Policy(config, symbols, codes=20).eval()


@pytest.fixture(scope="module")
def prefix(policy: Policy) -> torch.Tensor:
    return policy.prefix_ids(PHONES, ["s1", "s2", "s1"], ["happy", "sad", "sad"])


def test_prefixes_are_padded_on_the_left(prefix: torch.Tensor) -> None:
    assert prefix.tolist() == [
        [0, 0, 2, 4, 1, 6, 7, 8],
        [0, 0, 0, 0, 3, 5, 1, 8],
        [3, 4, 1, 7, 6, 6, 8, 7],
    ]


def test_a_saved_policy_loads_unchanged(policy: Policy, prefix: torch.Tensor, tmp_path: Path) -> None:
    policy.save(tmp_path)
    loaded, tokens = Policy.load(tmp_path), torch.tensor([[3, 7], [0, 1], [19, 2]])
    assert torch.equal(loaded.prefix_ids(PHONES, ["s1", "s2", "s1"], ["happy", "sad", "sad"]), prefix)
    assert torch.equal(loaded.logits(prefix, tokens), policy.logits(prefix, tokens))


def test_an_unknown_symbol_is_rejected(policy: Policy) -> None:
    with pytest.raises(ValueError, match="does not know 'q'"):
        policy.prefix_ids([("q",)], ["s1"], ["sad"])


def test_pace_by_hand(policy: Policy) -> None:
    """Two happy utterances of 1 and 3 tokens per phone, a sad one of 2: happy 2, sad 2; s1 (1, 2) is .75 of the mean, s2 1.5."""
    paced = copy.deepcopy(policy)
    paced.measure_pace(["happy", "happy", "sad"], ["s1", "s2", "s1"], torch.tensor([1.0, 3.0, 2.0]))
    pace = dict(zip(paced.symbols, paced.pace.tolist(), strict=True))
    assert pace == {**dict.fromkeys(paced.symbols, 1.0), "<happy>": 2.0, "<sad>": 2.0, "<s1>": 0.75, "<s2>": 1.5}


@pytest.mark.parametrize("paced", [True, False])
def test_cached_sampling_and_the_parallel_forward_have_the_same_logits(
    policy: Policy, prefix: torch.Tensor, paced: bool
) -> None:
    """Applying the sampler's noise to the parallel logits reproduces the sampler's tokens at every position."""
    policy = copy.deepcopy(policy)
    policy.config = replace(policy.config, paced=paced)
    policy.measure_pace(["happy", "sad"], ["s1", "s2"], torch.tensor([1.3, 2.6]))
    noise = uniform((30, 3), 0, "test")
    rollout = policy.sample(prefix, noise)
    logits = policy.logits(prefix, rollout.tokens)
    used = torch.nn.functional.pad(noise, (0, 0, 0, 1), value=0.5)[: logits.shape[1]]
    replayed = inverse_cdf(logits.flatten(0, 1), used.T.reshape(-1)).view(3, -1)
    expected = torch.nn.functional.pad(rollout.tokens, (0, 1))
    expected[torch.arange(3), rollout.lengths] = policy.eos
    assert int(rollout.lengths.max()) > 5
    mask = rollout.scored
    assert torch.equal(replayed[mask], expected[mask])


def test_packed_values_go_back_to_their_rows() -> None:
    rollout = Rollout(torch.zeros(2, 2, dtype=torch.long), torch.tensor([1, 2]), torch.tensor([True, False]))
    assert rollout.counts.tolist() == [2, 2]
    assert rollout.sums(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist() == [3.0, 7.0]
    padded = rollout.padded(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    assert padded[..., 0].tolist() == [[1.0, 2.0, 0.0], [3.0, 4.0, 0.0]]


@torch.no_grad()
def test_a_decoder_in_bfloat16_converts_its_weights_once(policy: Policy, prefix: torch.Tensor) -> None:
    """The products' weights are kept in the type of the computation; results are those of weights converted at every token."""
    with torch.autocast("cpu", torch.bfloat16):
        once = policy.continuation(prefix, 4)
        always = policy.continuation(prefix, 4)
        always.decoder.layers = [layer.column_major(torch.float32) for layer in fuse(policy.llm)]
        for token in (1, 2, 3):
            for continuation in (once, always):
                continuation.step(torch.full((3,), token))
            assert torch.equal(once.logits, always.logits)
    products = {
        getattr(layer, name).dtype for layer in once.decoder.layers for name in ("qkv", "qkv_bias", "out", "down")
    }
    assert products == {torch.bfloat16}
    assert policy.continuation(prefix, 4).decoder.layers[0].qkv.dtype == torch.float32


@pytest.mark.parametrize("paced", [True, False])
def test_the_decoder_steps_give_the_parallel_logits(policy: Policy, prefix: torch.Tensor, paced: bool) -> None:
    """Token by token, after the prefix and after a row has left the batch."""
    policy = copy.deepcopy(policy)
    policy.config = replace(policy.config, paced=paced)
    policy.measure_pace(["happy", "sad"], ["s1", "s2"], torch.tensor([1.3, 2.6]))
    tokens = torch.randint(20, (3, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = policy._hidden(prefix, tokens, torch.full((3,), 10)).view(3, 10, -1)
        decoder = Decoder(policy.llm, *policy._prefix(prefix), room=9)
        rows = torch.arange(3)
        for step in range(9):
            assert torch.allclose(decoder.hidden, expected[rows, step], atol=1e-5)
            if step == 4:
                rows = torch.tensor([0, 2])
                decoder.keep(torch.tensor([True, False, True]))
            decoder.step(policy.speech_embedding(tokens[rows, step]))
        assert torch.allclose(decoder.hidden, expected[rows, 9], atol=1e-5)


def test_eos_is_never_the_first_token(policy: Policy, prefix: torch.Tensor) -> None:
    with torch.no_grad():
        policy.llm_decoder.bias[policy.eos] += 50
        rollout = policy.sample(prefix, uniform((30, 3), 0, "test"))
        policy.llm_decoder.bias[policy.eos] -= 50
    assert rollout.lengths.tolist() == [1, 1, 1]
    assert rollout.ended.all()


def test_a_sample_at_the_limit_is_cut_and_says_so(policy: Policy, prefix: torch.Tensor) -> None:
    with torch.no_grad():
        policy.llm_decoder.bias[policy.eos] -= 50
        rollout = policy.sample(prefix, uniform((4, 3), 0, "test"))
        policy.llm_decoder.bias[policy.eos] += 50
    assert rollout.lengths.tolist() == [4, 4, 4]
    assert not rollout.ended.any()
    assert rollout.scored.sum(1).tolist() == [4, 4, 4]


def test_sampling_follows_the_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0]).expand(30_000, -1)
    samples = inverse_cdf(logits, uniform((30_000,), 0, "test"))
    share = torch.bincount(samples, minlength=3) / 30_000
    assert torch.allclose(share, logits[0].softmax(0), atol=0.01)


def test_an_impossible_class_is_never_drawn() -> None:
    logits = torch.tensor([[0.0, -math.inf, 0.0, -math.inf]]).expand(3, -1)
    samples = inverse_cdf(logits, torch.tensor([1e-9, 0.5000001, 1 - 1e-9]))
    assert samples.tolist() == [0, 2, 2]


def test_kl_and_its_gradient_against_torch() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 3, 5, generator=generator, requires_grad=True)
    reference = torch.randn(2, 3, 5, generator=generator)
    ours = token_kl(logits, reference)
    p, q = torch.distributions.Categorical(logits=logits), torch.distributions.Categorical(logits=reference)
    theirs = torch.distributions.kl_divergence(p, q)
    assert torch.allclose(ours, theirs, atol=1e-6)
    (a,) = torch.autograd.grad(ours.sum(), logits, retain_graph=True)
    (b,) = torch.autograd.grad(theirs.sum(), logits)
    assert torch.allclose(a, b, atol=1e-6)
    assert torch.allclose(token_kl(reference, reference), torch.zeros(2, 3), atol=1e-6)
    assert torch.allclose(
        token_entropy(reference), torch.distributions.Categorical(logits=reference).entropy(), atol=1e-6
    )


def test_kl_by_hand() -> None:
    """P = (1/2, 1/2), Q = (1/4, 3/4): KL = 1/2 ln 2 + 1/2 ln(2/3)."""
    kl = token_kl(torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[1.0, 3.0]]]).log())
    assert kl.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))


def test_runs_of_numbers() -> None:
    owner, numbers = runs(torch.tensor([5, 0, 9]), torch.tensor([2, 0, 3]), 5)
    assert owner.tolist() == [0, 0, 2, 2, 2]
    assert numbers.tolist() == [5, 6, 9, 10, 11]


def test_values_at_the_scored_positions() -> None:
    """Two tokens and eos; three tokens, cut at the limit."""
    rollout = Rollout(torch.tensor([[4, 5, 0], [6, 7, 8]]), torch.tensor([2, 3]), torch.tensor([True, False]))
    values = torch.tensor([[1.0, 2, 3, 0], [4, 5, 6, 0]])
    assert rollout.pick(values, 6).tolist() == values[rollout.scored].tolist() == [1, 2, 3, 4, 5, 6]
    assert rollout.sums(torch.arange(1.0, 7)).tolist() == [6, 15]
