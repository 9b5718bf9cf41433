"""Focal loss, a control of label smoothing: a different loss that reduces overconfidence. Off at ``γ = 0``."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from rrpo.regularizers.base import CONFIDENCE, Regularizer, SampleLoss, strength

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FocalLoss(Regularizer):
    """Weight each class of the target by ``(1 - p_k)^γ``: samples that the model already classifies correctly count less."""

    label = "focal loss"
    control_of = "ls"
    version = 1
    source = (
        "Lin et al. 2017 (arXiv 1708.02002), without class weights; for calibration: Mukhoti et al. 2020 (2002.09437)"
    )
    equation = "L = -sum_k y_k (1 - p_k)^γ log p_k"
    check = CONFIDENCE
    gamma: float = strength(2.0, off=0.0, search=(0.0, 5.0), limits=(0.0, inf))
    """γ, the focusing parameter; Lin's value 2."""

    def loss(self, inner: SampleLoss) -> SampleLoss:
        """Return the loss so far with the target ``[B, K]`` weighted down where the model is right."""
        import torch

        def focal(logits: Tensor, y: Tensor) -> Tensor:
            wrong = 1 - logits.softmax(1)
            tiny = torch.finfo(wrong.dtype).tiny  # for γ < 1 the gradient at 0 would be infinite
            return inner(logits, y * wrong.clamp(min=tiny) ** self.gamma)

        return focal
