"""EmoMix's style loss: Gram matrices by hand, what they discard, and their use in supervised training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rrpo.config import RewardModelConfig
from rrpo.experiment import dataflow
from rrpo.models.reward_model import RewardModel
from rrpo.profiles import PROFILES
from rrpo.testing.toy_models import AUDIO, EMOTIONS, toy_codec
from rrpo.training.style import StyleLoss, gram, gram_distance

QUICK = PROFILES["quick"]


def test_a_gram_matrix_is_the_mean_of_outer_products_of_valid_frames() -> None:
    """For the frames (1, 2) and (3, 0), and one of padding: ((1 + 9) / 2, 2 / 2; 2 / 2, 4 / 2)."""
    h = torch.tensor([[[1.0, 2.0], [3.0, 0.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    assert gram(h, mask).tolist() == [[[5.0, 1.0], [1.0, 2.0]]]
    assert torch.equal(gram(h[:, [1, 0, 2]], mask), gram(h, mask)), "order is forgotten"


def test_the_distance_is_the_squared_frobenius_norm_over_d_squared() -> None:
    a = torch.tensor([[[5.0, 1.0], [1.0, 2.0]]])
    assert gram_distance(a, torch.zeros(1, 2, 2)).tolist() == [(25 + 1 + 1 + 4) / 4]


@pytest.fixture(scope="module")
def style() -> StyleLoss:
    torch.manual_seed(0)
    model = RewardModel(RewardModelConfig(dim=16, layers=1, heads=2), EMOTIONS, AUDIO.n_mels, AUDIO.floor)
    return StyleLoss(model.eval().requires_grad_(False), toy_codec(), 2.0)


def logits_of(tokens: torch.Tensor, lengths: torch.Tensor, surely: float) -> torch.Tensor:
    """Return packed logits with ``surely`` more on the true tokens than on the rest, and arbitrary ones on eos."""
    rows = [
        torch.cat([surely * torch.eye(26)[row[:n]], torch.full((1, 26), 7.0)])
        for row, n in zip(tokens, lengths.tolist(), strict=True)
    ]
    return torch.cat(rows)


def test_certain_predictions_have_no_loss_and_others_a_gradient(style: StyleLoss) -> None:
    tokens, lengths = torch.tensor([[3, 9, 24, 1], [5, 5, 0, 0]]), torch.tensor([4, 2])
    sure = style(logits_of(tokens, lengths, 100.0), tokens, lengths, ["anna", "ben"])
    assert sure.item() == pytest.approx(0.0, abs=1e-9)
    logits = logits_of(tokens, lengths, 1.0).requires_grad_()
    loss = style(logits, tokens, lengths, ["anna", "ben"])
    loss.backward()
    assert loss.item() > 1e-6
    assert logits.grad is not None
    moved = logits.grad.abs().sum(1) > 0
    assert moved.tolist() == [True, True, True, True, False, True, True, False], "eos has no part in it"
    twice = replace(style, weight=4.0)(logits, tokens, lengths, ["anna", "ben"])
    assert twice.item() == pytest.approx(2 * loss.item())


def test_without_a_weight_the_sft_stage_is_unchanged() -> None:
    """Off, it also leaves the key unchanged; on, it reads the seed's pre-trained reward model."""
    plain = dataflow.sft(QUICK, 1000)
    assert dataflow.sft(QUICK, 1000, style_weight=0.0).key == plain.key
    styled = dataflow.sft(QUICK, 1000, style_weight=1.0)
    assert styled.key != plain.key
    assert styled.inputs["emotion"].key == dataflow.pretrained(QUICK, dataflow.SFT, 1000).key
