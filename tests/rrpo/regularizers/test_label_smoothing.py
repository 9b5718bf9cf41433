"""Equation 2 by hand."""

from __future__ import annotations

import torch

from rrpo.regularizers import LabelSmoothing
from rrpo.testing.regularizers import RegularizerContract


class TestContract(RegularizerContract):
    regularizer = LabelSmoothing()


class TestLabelSmoothing:
    def test_by_hand(self) -> None:
        smoothed = LabelSmoothing(epsilon=0.1).targets(torch.eye(5)[:1])
        torch.testing.assert_close(smoothed, torch.tensor([[0.92, 0.02, 0.02, 0.02, 0.02]]))

    def test_stays_a_distribution_for_vote_shares(self) -> None:
        smoothed = LabelSmoothing(epsilon=0.3).targets(torch.tensor([[2 / 3, 1 / 3, 0.0]]))
        torch.testing.assert_close(smoothed, torch.tensor([[0.7 * 2 / 3 + 0.1, 0.7 / 3 + 0.1, 0.1]]))
