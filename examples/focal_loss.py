"""Focal loss as a regularizer of the reward model: ``L = -sum_k y_k (1 - p_k)^γ log p_k``. Off at ``γ = 0``.

Samples that the model already classifies correctly get less weight, which counteracts overconfidence. Lin et al. 2017, *Focal
loss for dense object detection*, arXiv 1708.02002, Eq. 4, without class weights; the paper uses γ = 2. To use it:

    python -m ablations.run --plugin examples/focal_loss.py --grid loo --arms diffro,rrpo,rrpo_focal
"""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from rrpo.regularizers import REGULARIZERS, ManipulationCheck, Regularizer, SampleLoss, strength


@dataclass(frozen=True, kw_only=True)
class FocalLoss(Regularizer):
    """Weight each class of the target by ``(1 - p_k)^γ``."""

    label = "Focal"
    check = ManipulationCheck(scalar="rm_confidence", direction=-1, text="confidence")
    gamma: float = strength(2.0, off=0.0, search=(0.0, 5.0), limits=(0.0, inf))
    """γ, the focusing parameter; the paper's value 2; range [0, inf)."""

    def loss(self, inner: SampleLoss) -> SampleLoss:
        """Return ``inner`` with its target ``[B, K]`` weighted by ``(1 - p_k)^γ``."""

        def focal(logits: Tensor, y: Tensor) -> Tensor:
            wrong = 1 - logits.softmax(1)
            tiny = torch.finfo(wrong.dtype).tiny  # for γ < 1 the gradient at 0 is infinite
            return inner(logits, y * wrong.clamp(min=tiny) ** self.gamma)

        return focal


REGULARIZERS.register("focal", FocalLoss())
