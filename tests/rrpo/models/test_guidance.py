"""Guided decoding: formulas by hand, identity values bit for bit, and the contract of every token policy."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rrpo.config import PrefixClassifierConfig
from rrpo.corpus.tags import NO_EMOTION, NO_SPEAKER
from rrpo.models.guidance import GUIDANCE, ClassifierFree, Mixture, SoftLabel
from rrpo.models.guidance.base import Positions
from rrpo.models.guidance.policy import GuidedPolicy
from rrpo.models.policy import Policy
from rrpo.models.prefix_classifier import Evidence, PrefixClassifier, code_levels
from rrpo.plugins import PluginError
from rrpo.seeding import uniform
from rrpo.testing.policies import PolicyContract
from rrpo.testing.toy_models import EMOTIONS, SPEAKERS, toy_codec, toy_policy, toy_prompts


def plain_policy() -> Policy:
    """Return an untrained toy policy that depends on its prefix."""
    policy = toy_policy()
    with torch.no_grad():
        for parameter in policy.llm.layers.parameters():
            parameter.mul_(10 if parameter.dim() > 1 else 1)
    return policy


def tagged_policy() -> Policy:
    """Return the same policy with null tags."""
    groups = {NO_EMOTION: EMOTIONS, NO_SPEAKER: SPEAKERS}
    return (
        plain_policy().extended({f"<{tag}>": [f"<{name}>" for name in names] for tag, names in groups.items()}).eval()
    )


def classifier() -> PrefixClassifier:
    """Return an untrained classifier with confident predictions."""
    torch.manual_seed(3)
    model = PrefixClassifier(PrefixClassifierConfig(dim=8), (*EMOTIONS, "neutral"), code_levels(toy_codec().codebook))
    with torch.no_grad():
        model.head.weight.mul_(20)
    return model.eval()


def guided(name: str, **options: float | str) -> GuidedPolicy:
    return GuidedPolicy(tagged_policy(), GUIDANCE.choice(name, **options), classifier()).eval()


class TestClassifierFree(PolicyContract):
    make = staticmethod(lambda: guided("classifier-free", gamma=1.5))


class TestSoftLabel(PolicyContract):
    make = staticmethod(lambda: guided("soft-label", gamma=0.5, alpha=0.7, top=5))


class TestMixture(PolicyContract):
    make = staticmethod(lambda: guided("mixture", second="happy"))


def sampled(policy: GuidedPolicy | Policy, prefix: Tensor) -> Tensor:
    noise = uniform((policy.max_tokens, len(prefix)), 0, "guidance")
    return policy.sample(prefix, noise).tokens


def prefixes(policy: Policy) -> Tensor:
    return policy.prompt_ids(toy_prompts())


def test_off_is_the_policy_bit_for_bit() -> None:
    """Classifier-free guidance and a mixture with weight 0 equal the policy; soft labels equal it under the null tag."""
    policy = tagged_policy()
    prefix = prefixes(policy)
    conditional, null = sampled(policy, prefix), sampled(policy, policy.restyled(prefix, emotion=NO_EMOTION))
    assert not torch.equal(conditional, null)
    assert torch.equal(sampled(guided("classifier-free", gamma=0.0), prefix), conditional)
    assert torch.equal(sampled(guided("mixture", second="sad", weight=0.0, stop=9.0), prefix), conditional)
    assert torch.equal(sampled(guided("soft-label", gamma=0.0), prefix), null)
    assert not torch.equal(sampled(guided("classifier-free", gamma=3.0), prefix), conditional)


def test_a_policy_that_knows_more_symbols_says_the_same() -> None:
    """The row of a new symbol is the mean of the rows it stands for; left padding does not change positions."""
    plain, tagged = plain_policy(), tagged_policy()
    prefix = prefixes(plain)
    assert torch.equal(sampled(plain, prefix), sampled(tagged, prefix))
    rows = tagged.llm.embed_tokens.weight
    emotions = [tagged.symbols.index(f"<{name}>") for name in EMOTIONS]
    assert torch.allclose(rows[tagged.symbols.index(f"<{NO_EMOTION}>")], rows[emotions].mean(0))
    restyled = tagged.restyled(prefix, emotion=NO_EMOTION, speaker=NO_SPEAKER)
    for row, before, length in zip(restyled, prefix, (prefix > 0).sum(1).tolist(), strict=True):
        names = [tagged.symbols[symbol] for symbol in row[-length:].tolist()]
        assert names[:3] == [f"<{NO_EMOTION}>", f"<{NO_SPEAKER}>", "<endofprompt>"]
        assert torch.equal(row[2 - length :], before[2 - length :])
        assert not row[:-length].any()


def test_classifier_free_guidance_moves_away_from_the_null_tag() -> None:
    conditional, null = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0]])
    at = Positions(torch.tensor([0]), torch.tensor([1.0]), None)
    assert ClassifierFree(gamma=2.0).combine([conditional, null], at).tolist() == [[1.0, 4.0, -2.0]]


class _Known(Evidence):
    """Emotion .5 and neutral .25 so far; after tokens 0 and 1 (.8, .1) and (.2, .4)."""

    def __init__(self) -> None:
        pass

    def before(self) -> tuple[Tensor, Tensor]:
        return torch.tensor([0.5]).log(), torch.tensor([0.25]).log()

    def after(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        emotion, neutral = torch.tensor([0.8, 0.2, 9.0]).log(), torch.tensor([0.1, 0.4, 9.0]).log()
        return emotion[tokens], neutral[tokens]


@pytest.mark.parametrize(("alpha", "factors"), [(1.0, (0.8, 0.2, 0.5)), (0.0, (0.1, 0.4, 0.25))])
def test_soft_labels_ask_for_the_emotion_at_one_and_for_neutral_at_zero(
    alpha: float, factors: tuple[float, ...]
) -> None:
    """The classifier is evaluated for the two most likely of three tokens; p' = p x p(class | token)^2 at gamma 2."""
    null = torch.tensor([[0.5, 0.3, 0.2]]).log()
    at = Positions(torch.tensor([0]), torch.tensor([1.0]), _Known())
    logits = SoftLabel(gamma=2.0, alpha=alpha, top=2).combine([null], at)
    expected = [[p * factor**2 for p, factor in zip((0.5, 0.3, 0.2), factors, strict=True)]]
    assert torch.allclose(logits.exp(), torch.tensor(expected))


def test_a_soft_label_is_the_geometric_mean_of_its_ends() -> None:
    null = torch.tensor([[0.5, 0.3, 0.2]]).log()
    at = Positions(torch.tensor([0]), torch.tensor([1.0]), _Known())
    ends = [SoftLabel(gamma=1.0, alpha=alpha, top=2).combine([null], at) for alpha in (0.0, 1.0)]
    middle = SoftLabel(gamma=1.0, alpha=0.25, top=2).combine([null], at)
    assert torch.allclose(middle, 0.75 * ends[0] + 0.25 * ends[1])


def test_a_mixture_has_three_pieces_whose_weights_sum_to_one() -> None:
    """T is 10: tokens 0 to 2 use e, 3 to 6 both, later ones e_2, also past T."""
    first, second = torch.zeros(4, 2), torch.ones(4, 2)
    at = Positions(torch.tensor([2, 3, 7, 12]), torch.full((4,), 10.0), None)
    mixture = Mixture(second="happy", weight=0.25, start=0.3, stop=0.7)
    assert mixture.combine([first, second], at)[:, 0].tolist() == [0.0, 0.25, 1.0, 1.0]
    assert torch.allclose(mixture.combine([second, second], at), second), "weights sum to 1"


def test_the_expected_length_is_phones_at_the_pace_of_emotion_and_speaker() -> None:
    policy = toy_policy()
    policy.measure_pace(["angry", "happy"], ["anna", "anna"], torch.tensor([2.0, 4.0]))
    prefix = policy.prefix_ids([("a", "b"), ("a",)], ["anna", "anna"], ["happy", "angry"])
    assert policy.expected_tokens(prefix).tolist() == [8.0, 2.0]
    mixed = GuidedPolicy(policy, GUIDANCE.choice("mixture", second="angry"))
    assert mixed.expected(mixed.guidance.prefixes(policy, prefix)).tolist() == [6.0, 2.0]


def test_predictions_token_by_token_equal_the_parallel_ones() -> None:
    model = classifier()
    tokens = torch.tensor([[3, 7, 25], [24, 0, 1]])
    states = model.states(tokens)
    stepped = states[:, 0]
    for n in range(tokens.shape[1]):
        stepped = model.next_states(stepped, tokens[:, n : n + 1])[:, 0]
        assert torch.allclose(stepped, states[:, n + 1], atol=1e-6)
    alternatives = model.next_states(states[:, 1], torch.tensor([[7, 2], [0, 5]]))
    assert torch.allclose(alternatives[:, 0], states[:, 2], atol=1e-6)
    changed = model.states(torch.tensor([[3, 7, 4], [24, 0, 9]]))
    assert torch.equal(changed[:, :3], states[:, :3])


def test_codes_are_described_by_their_coordinates() -> None:
    features = code_levels(torch.tensor([[-1.0, 0.0], [-1.0, 1.0], [1.0, 1.0]]))
    assert features.tolist() == [[1, 0, 1, 0, 0], [1, 0, 0, 1, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 1]]


def test_invalid_requests_are_rejected() -> None:
    policy = tagged_policy()
    with pytest.raises(ValueError, match="no-emotion"):
        GuidedPolicy(toy_policy(), GUIDANCE.choice("classifier-free")).sample(prefixes(policy), torch.rand(8, 18))
    with pytest.raises(ValueError, match="needs a prefix classifier"):
        GuidedPolicy(policy, GUIDANCE.choice("soft-label"))
    with pytest.raises(ValueError, match="'neutral', which is not one of"):
        PrefixClassifier(PrefixClassifierConfig(), EMOTIONS, torch.eye(3))
    narrow = PrefixClassifier(PrefixClassifierConfig(dim=8), ("sad", "neutral"), classifier().features)
    with pytest.raises(ValueError, match="does not know 'angry'"):
        GuidedPolicy(policy, GUIDANCE.choice("soft-label"), narrow).evidence(prefixes(policy))
    for name, options in {"soft-label": {"alpha": 1.5}, "classifier-free": {"gamma": -1.0}, "mixture": {}}.items():
        with pytest.raises(PluginError, match=name):
            GUIDANCE.choice(name, **options)


def test_evidence_is_for_the_requested_emotion() -> None:
    """Under the null tag the soft label still uses the requested emotion; a state of zeros gives only the bias."""
    evidence = guided("soft-label").evidence(prefixes(tagged_policy()))
    assert evidence is not None
    assert evidence.wanted.tolist() == [i % 3 for i in range(18)]
    bias = classifier().head.bias.log_softmax(0)
    assert evidence.before()[0][1].item() == pytest.approx(bias[1].item(), abs=1e-6)
    assert evidence.before()[1][1].item() == pytest.approx(bias[3].item(), abs=1e-6)
    assert math.isclose(evidence.select(torch.tensor([4])).before()[0].item(), bias[1].item(), abs_tol=1e-6)
