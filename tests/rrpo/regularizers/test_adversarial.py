"""Equation 4 by hand, and its edge cases."""

from __future__ import annotations

import pytest
import torch

from rrpo.masking import sample_norm, valid_mask
from rrpo.regularizers import Adversarial, cross_entropy
from rrpo.testing.regularizers import RegularizerContract, reward_model, speech_like


class TestContract(RegularizerContract):
    regularizer = Adversarial()


class TestRelativeContract(RegularizerContract):
    regularizer = Adversarial(adv_norm="relative", epsilon_adv=0.1)


class TestAdversarial:
    def test_by_hand_on_a_linear_loss(self) -> None:
        h = torch.zeros(2, 2, 2)
        slope = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 2.0], [5.0, 5.0]]])
        mask = valid_mask(torch.tensor([2, 1]), 2)
        delta = Adversarial(epsilon_adv=0.5).delta(lambda x: (x * slope).sum((1, 2)), h, mask)
        torch.testing.assert_close(delta, torch.tensor([[[0.3, 0.0], [0.0, 0.4]], [[0.0, 0.5], [0.0, 0.0]]]))

    @pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
    def test_norm_is_epsilon_adv_for_each_sample_whatever_the_gradient(self, scale: float) -> None:
        h, lengths, _ = speech_like(5)
        mask = valid_mask(lengths, 24)
        delta = Adversarial(epsilon_adv=0.7).delta(lambda x: scale * x.tanh().sum((1, 2)), h, mask)
        torch.testing.assert_close(sample_norm(delta, mask), torch.full((5,), 0.7))
        assert (delta[~mask] == 0).all()

    def test_relative_norm_is_a_share_of_h(self) -> None:
        h, lengths, _ = speech_like(5)
        mask = valid_mask(lengths, 24)
        relative = Adversarial(epsilon_adv=0.1, adv_norm="relative")
        delta = relative.delta(lambda x: x.tanh().sum((1, 2)), h, mask)
        torch.testing.assert_close(sample_norm(delta, mask), 0.1 * sample_norm(h, mask))

    def test_no_gradient_no_push(self) -> None:
        h = torch.randn(2, 3, 4)
        delta = Adversarial().delta(lambda x: 0.0 * x.sum((1, 2)), h, torch.ones(2, 3, dtype=torch.bool))
        assert (delta == 0).all()

    def test_padding_changes_no_delta(self) -> None:
        model, (F, lengths, y) = reward_model(), speech_like()
        deltas = []
        for x in (F, torch.cat([F, torch.full((len(F), 8, 6), 7.0)], dim=1)):
            h, mask = model.encode(x, lengths)
            loss = lambda h, mask=mask: cross_entropy(model.classify(h, mask), y)  # noqa: E731
            deltas.append(Adversarial().delta(loss, h, mask)[:, :6])
        torch.testing.assert_close(deltas[0], deltas[1], rtol=1e-4, atol=1e-6)
