"""The reward of Eq. 6 under its three options."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rrpo.config import OFF, REWARDS, RegularizerConfig, RewardModelConfig
from rrpo.masking import sample_norm, valid_mask
from rrpo.models.reward_model import RewardModel
from rrpo.optimizers.reward import reward_loss
from rrpo.regularizers import Adversarial, cross_entropy

TARGET = torch.tensor([0, 1, 2, 1])
LENGTHS = torch.tensor([3, 8, 12, 12])


@pytest.fixture
def model() -> RewardModel:
    torch.manual_seed(0)
    config = RewardModelConfig(dim=16, layers=1, heads=2)
    model = RewardModel(config, ("a", "b", "c"), 6, 1e-5, RegularizerConfig(epsilon=0.1, alpha=0.5, epsilon_adv=0.5))
    return model.eval().requires_grad_(False)


@pytest.fixture(name="F")
def frames() -> Tensor:
    return torch.randn(4, 12, 6, generator=torch.Generator().manual_seed(1))


def test_hard_ce(model: RewardModel, F: Tensor) -> None:
    expected = functional.cross_entropy(model(F, LENGTHS), TARGET, reduction="none")
    torch.testing.assert_close(reward_loss(model, F, LENGTHS, TARGET), expected)


def test_smoothed_ce_uses_the_models_own_epsilon(model: RewardModel, F: Tensor) -> None:
    expected = functional.cross_entropy(model(F, LENGTHS), TARGET, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(reward_loss(model, F, LENGTHS, TARGET, "smoothed_ce"), expected)


def test_full_l_ser_adds_alpha_times_the_loss_under_attack(model: RewardModel, F: Tensor) -> None:
    y = functional.one_hot(TARGET, 3) * 0.9 + 0.1 / 3
    h, mask = model.encode(F, LENGTHS)
    adversarial = Adversarial.of(model.regularizers)
    delta = adversarial.delta(lambda h: cross_entropy(model.classify(h, mask), y), h, mask)
    torch.testing.assert_close(sample_norm(delta, mask), torch.full((4,), 0.5))
    expected = sum(weight * cross_entropy(model.classify(x, mask), y) for weight, x in ((1.0, h), (0.5, h + delta)))
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(reward_loss(model, F, LENGTHS, TARGET, "full_l_ser"), expected)


def test_all_options_agree_without_regularisers(model: RewardModel, F: Tensor) -> None:
    readings = ("hard_ce", "smoothed_ce", "full_l_ser")
    model.regularizers = OFF
    hard, smoothed, full = (reward_loss(model, F, LENGTHS, TARGET, reward) for reward in readings)
    assert torch.equal(hard, smoothed)
    assert torch.equal(hard, full)


@pytest.mark.parametrize("reward", REWARDS)
def test_gradient_reaches_valid_frames_and_no_others(model: RewardModel, F: Tensor, reward: str) -> None:
    F.requires_grad_()
    reward_loss(model, F, LENGTHS, TARGET, reward).sum().backward()
    assert F.grad is not None
    valid = valid_mask(LENGTHS, 12)
    assert (F.grad[valid].abs().sum(1) > 0).all()
    assert (F.grad[~valid] == 0).all()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("reward", ["hard_ce", "smoothed_ce"])
def test_gradient_agrees_with_finite_differences(model: RewardModel, F: Tensor, reward: str) -> None:
    direction = torch.randn_like(F)
    F.requires_grad_()
    (gradient,) = torch.autograd.grad(reward_loss(model, F, LENGTHS, TARGET, reward).sum(), F)
    with torch.no_grad():
        up, down = (reward_loss(model, F + s * 1e-2 * direction, LENGTHS, TARGET, reward).sum() for s in (1, -1))
    assert ((up - down) / 2e-2).item() == pytest.approx((gradient * direction).sum().item(), rel=0.03)


@pytest.mark.parametrize("reward", REWARDS)
def test_works_without_gradient_on_empty_and_padded_rollouts(model: RewardModel, F: Tensor, reward: str) -> None:
    lengths = torch.tensor([0, 1, 12, 12])
    wide = torch.cat([F, torch.full((4, 5, 6), math.log(1e-5))], dim=1)
    with torch.no_grad():
        losses = reward_loss(model, F, lengths, TARGET, reward)
        torch.testing.assert_close(reward_loss(model, wide, lengths, TARGET, reward), losses, rtol=1e-4, atol=1e-5)
    assert losses.isfinite().all()
    assert not losses.requires_grad


def test_bounded_rewards_by_hand(model: RewardModel, F: Tensor) -> None:
    with torch.no_grad():
        model.head.weight *= 30
    p = model(F, LENGTHS).softmax(1)[torch.arange(4), TARGET]
    assert p.min() < 0.9 < p.max()
    torch.testing.assert_close(-reward_loss(model, F, LENGTHS, TARGET, "bounded"), p)
    torch.testing.assert_close(-reward_loss(model, F, LENGTHS, TARGET, "clipped"), p.clamp(max=0.9).log())


def test_unknown_reward_is_refused(model: RewardModel, F: Tensor) -> None:
    with pytest.raises(ValueError, match="unknown reward 'soft'; use one of hard_ce, smoothed_ce, full_l_ser, "):
        reward_loss(model, F, LENGTHS, TARGET, "soft")
