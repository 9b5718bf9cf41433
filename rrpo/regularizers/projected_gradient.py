"""Projected gradient descent (PGD) at h', a stronger attack than Adv's single step. Off at ``alpha = 0``."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from rrpo.regularizers.adversarial import along_gradient
from rrpo.regularizers.base import PAPER, PGD_ACCURACY, HiddenLoss, Regularizer, Term, strength

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 3
"""Steps of the ascent."""
PACE = 2.5
"""Total length of all steps relative to the radius, as in the source's public code."""


@dataclass(frozen=True, kw_only=True)
class ProjectedGradient(Regularizer):
    """``α L(h' + δ)`` as in Eq. 5, with δ from three steps within the ball of Adv's radius instead of one step to its surface."""

    label = "PGD"
    control_of = "adv"
    version = 1
    source = "Madry et al. 2018 (arXiv 1706.06083), with the L2 norm and without a random start"
    equation = "δ <- P_ε(δ + (2.5/3) ε g/||g||) three times from 0, g = ∂L/∂h' at h' + δ"
    term = "l_pgd"
    check = PGD_ACCURACY
    alpha: float = strength(PAPER.alpha, off=0.0, search=(0.0, 2.0), limits=(0.0, inf))
    """α, weight of the term; Adv's value."""
    epsilon: float = strength(PAPER.epsilon_adv, search=(0.05, 50.0), log=True, limits=(0.0, inf))
    """ε, maximum L2 norm of δ over ``[T', D]``; Adv's value."""

    def extra(self, losses: HiddenLoss, h: Tensor, mask: Tensor, draws: Tensor) -> Term:
        """Return the loss at ``h' + δ``."""
        return Term(self.alpha, losses(h + self.delta(losses, h, mask)))

    def delta(self, losses: HiddenLoss, h: Tensor, mask: Tensor) -> Tensor:
        """Return δ ``[B, T', D]`` with ``||δ|| <= ε`` for each sample; it carries no gradient."""
        import torch

        from rrpo.masking import sample_norm

        delta, radius = torch.zeros_like(h, requires_grad=False), h.new_full((len(h),), self.epsilon)
        for _ in range(STEPS):
            delta = delta + along_gradient(losses, h.detach() + delta, mask, radius * (PACE / STEPS))
            excess = sample_norm(delta, mask) / radius.clamp(min=torch.finfo(h.dtype).tiny)
            delta = delta / excess.clamp(min=1.0)[:, None, None]
        return delta
