"""Equation 5 by hand, and in the form that preceded regularizer objects."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rrpo.config import OFF, RegularizerConfig
from rrpo.masking import valid_mask
from rrpo.models.reward_model import RewardModel
from rrpo.models.signals import LOG_MEL
from rrpo.regularizers import Adversarial, EnergyMixup, cross_entropy, robust_loss
from rrpo.testing.regularizers import FLOOR, reward_model, speech_like


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[math.log(1.0), math.log(3.0)]])
    expected = -(0.2 * math.log(0.25) + 0.8 * math.log(0.75))
    assert cross_entropy(logits, torch.tensor([[0.2, 0.8]])).item() == pytest.approx(expected)


class LinearModel:
    """A model with easily computed values: h' = F, logits = sum over valid frames."""

    floor = FLOOR
    signal = LOG_MEL

    def encode(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return F, valid_mask(lengths, F.shape[1])

    def classify(self, h: Tensor, mask: Tensor) -> Tensor:
        return h.masked_fill(~mask[..., None], 0.0).sum(1)


class TestRobustLoss:
    def test_equation_5_by_hand(self) -> None:
        F, lengths = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]]), torch.tensor([1, 1])
        config = RegularizerConfig(epsilon=0.2, mix_probability=0.0, alpha=0.5, epsilon_adv=0.5)
        terms = robust_loss(LinearModel(), F, lengths, torch.eye(2), config, 0, 0)  # type: ignore[arg-type]

        def loss(margin: float) -> float:  # two classes: log-odds of the right one, target (.9, .1)
            return 0.9 * math.log1p(math.exp(-margin)) + 0.1 * math.log1p(math.exp(margin))

        push = 0.5 * math.sqrt(2)  # delta lies along (1, -1)/sqrt 2: the margin moves by eps_adv sqrt 2
        l_emo = (loss(1.0) + loss(2.0)) / 2
        l_adv = (loss(1.0 - push) + loss(2.0 - push)) / 2
        assert terms["l_emo"].item() == pytest.approx(l_emo)
        assert terms["l_adv"].item() == pytest.approx(l_adv)
        assert terms["loss"].item() == pytest.approx(l_emo + 0.5 * l_adv)
        assert terms["relative_delta"].item() == pytest.approx((0.5 / 1 + 0.5 / 2) / 2)

    def test_equation_3_weighs_both_labels(self) -> None:
        model, (F, lengths, y) = reward_model(), speech_like()
        config = replace(OFF, mix_probability=1.0, mix_db_low=3.0, mix_db_high=3.0)
        mixup = EnergyMixup.of(config)
        mixture = mixup.mixture(F, lengths, mixup.draws(F.shape, 5, 2), FLOOR)
        logits = model(mixture.F, lengths)
        own, other = (functional.cross_entropy(logits, k.argmax(1), reduction="none") for k in (y, y[mixture.partner]))
        expected = ((1 - mixture.weight) * own + mixture.weight * other).mean()
        terms = robust_loss(model, F, lengths, y, config, 5, 2)
        torch.testing.assert_close(terms["l_emo"], expected.detach())
        assert (other - own).abs().max() > 0.01  # the partner's label does count

    def test_adversarial_term_is_the_harder_one(self) -> None:
        model, (F, lengths, y) = reward_model(), speech_like()
        terms = robust_loss(model, F, lengths, y, RegularizerConfig(), 0, 0)
        assert terms["l_adv"] > terms["l_emo"]


def as_written_out(
    model: RewardModel, F: Tensor, lengths: Tensor, y: Tensor, config: RegularizerConfig, seed: int, step: int
) -> Tensor:
    """Equation 5 as one formula."""
    smoothed = (1 - config.epsilon) * y + config.epsilon / y.shape[1]
    mixup = EnergyMixup.of(config)
    mixture = mixup.mixture(F, lengths, mixup.draws(F.shape, seed, step), model.floor)
    weight, other = mixture.weight, smoothed[mixture.partner]
    h, mask = model.encode(mixture.F, lengths)

    def losses(h: Tensor) -> Tensor:
        logits = model.classify(h, mask)
        return (1 - weight) * cross_entropy(logits, smoothed) + weight * cross_entropy(logits, other)

    l_emo = losses(h).mean()
    delta = Adversarial.of(config).delta(losses, h, mask)
    return l_emo + config.alpha * losses(h + delta).mean()


@pytest.mark.parametrize(
    "config",
    [
        OFF,
        RegularizerConfig(),
        replace(OFF, epsilon=0.1),
        replace(OFF, mix_probability=1.0),
        replace(OFF, alpha=0.5),
        RegularizerConfig(epsilon=0.2, mix_probability=0.5, alpha=0.3, adv_norm="relative", epsilon_adv=0.05),
    ],
    ids=["off", "all", "ls", "eam", "adv", "others"],
)
def test_the_composition_equals_the_formula_bit_for_bit(config: RegularizerConfig) -> None:
    model, (F, lengths, y) = reward_model(), speech_like()
    gradients = []
    for step in range(3):
        written, composed = (
            as_written_out(model, F, lengths, y, config, 7, step),
            robust_loss(model, F, lengths, y, config, 7, step)["loss"],
        )
        assert torch.equal(written, composed)
        for loss in (written, composed):
            gradients.append(torch.autograd.grad(loss, list(model.parameters())))
        assert all(torch.equal(a, b) for a, b in zip(*gradients[-2:], strict=True))
