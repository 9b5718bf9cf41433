"""The policy's supervised training: its start, its loss, and dropped tags."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rrpo.config import SftConfig
from rrpo.corpus.tags import NO_EMOTION, NO_SPEAKER
from rrpo.testing.toy_models import EMOTIONS, SPEAKERS, toy_policy, toy_prompts
from rrpo.training.sft import TokenSet, _by_coordinates, drop_tags


def test_codes_with_like_coordinates_start_alike() -> None:
    torch.manual_seed(0)
    levels = torch.linspace(-1, 1, 5)
    codebook = torch.cartesian_prod(levels, levels, levels)
    rows = _by_coordinates(codebook, 64)
    assert rows.shape == (125, 64)
    assert abs(rows.std().item() - 1) < 1e-3
    distance = torch.cdist(codebook, codebook)
    apart = torch.cdist(rows, rows)
    near, far = apart[(distance > 0) & (distance < 0.6)].mean(), apart[distance > 2].mean()
    assert near < 0.7 * far
    assert len(rows.unique(dim=0)) == 125


def test_cross_entropy_is_the_mean_over_tokens_and_eos() -> None:
    """Two utterances, of 1 and 2 tokens: 2 + 3 predictions, one utterance at a time."""
    prompts, policy = toy_prompts()[:2], toy_policy()
    speech: Any = SimpleNamespace(utterances=prompts, batch=lambda indices, device: (None, None))
    tokens, lengths = torch.tensor([[5, 0], [9, 7]]), torch.tensor([1, 2])
    codec: Any = SimpleNamespace(encode=lambda F, frames: (tokens, lengths))
    total = 0.0
    for prompt, predicted in zip(prompts, ([5, policy.eos], [9, 7, policy.eos]), strict=True):
        before = torch.tensor([predicted[:-1]])
        log_p = policy.logits(policy.prompt_ids([prompt]), before)[0].log_softmax(1)
        total -= sum(log_p[t, code].item() for t, code in enumerate(predicted))
    loss = TokenSet(speech, codec, "cpu").loss(policy, np.array([1, 0]))
    assert loss.item() == pytest.approx(total / 5, rel=1e-5)


def test_tag_dropout_nulls_its_share_and_half_of_those_speakers() -> None:
    """20 % of 4,000 prefixes lose the emotion and 10 % the speaker too, none the speaker alone; the step keys the draw."""
    groups = {NO_EMOTION: EMOTIONS, NO_SPEAKER: SPEAKERS}
    policy = toy_policy().extended({f"<{tag}>": [f"<{name}>" for name in names] for tag, names in groups.items()})
    prefix = policy.prompt_ids(toy_prompts()[:2]).repeat(2000, 1)
    config = SftConfig(tag_dropout=0.2, seed=1)
    dropped = drop_tags(policy, prefix, config, 5)
    first = (prefix == 0).sum(1, keepdim=True)
    tags = dropped.gather(1, first + torch.arange(2))
    emotion, speaker = (tags == torch.tensor([policy.symbols.index(f"<{tag}>") for tag in groups])).T
    assert abs(emotion.float().mean() - 0.2) < 0.03
    assert abs(speaker.float().mean() - 0.1) < 0.03
    assert bool((emotion | ~speaker).all())
    assert torch.equal(dropped[~emotion], prefix[~emotion])
    assert torch.equal(dropped, drop_tags(policy, prefix, config, 5))
    assert not torch.equal(dropped, drop_tags(policy, prefix, config, 6))
    assert drop_tags(policy, prefix, SftConfig(), 5) is prefix
