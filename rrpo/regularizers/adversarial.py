"""Adversarial training (Adv), Eq. 4. Off at ``alpha = 0``, where L_adv is still computed and adds exact zeros.

The paper does not specify the layer: here δ acts on the frame-level encoder output h', before pooling, on valid frames only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

from rrpo.regularizers.base import PAPER, PGD_ACCURACY, HiddenLoss, Regularizer, Term, strength

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Adversarial(Regularizer):
    """``α L_adv``, the loss at ``h' + δ``: preserves the accuracy under attacks on h'."""

    label = "Adv"
    paper = True
    source = "RRPO (arXiv 2512.04552); fast gradient method: Miyato et al. 2017 (arXiv 1605.07725)"
    equation = "Eq. 4-5: L + α L(h' + δ), δ = ε_adv g/||g||, g = ∂L/∂h'"
    term = "l_adv"
    scalars = ("relative_delta",)
    check = replace(
        PGD_ACCURACY, activity="l_adv_over_l_emo", at_least=1.05, weak="L_adv/L_emo under 1.05 in most reward models"
    )  # by the loss on hard, unmixed labels: the loss in training contains the entropy of smoothed and mixed targets
    alpha: float = strength(PAPER.alpha, off=0.0, search=(0.0, 2.0), limits=(0.0, inf), surface=True)
    """α, weight of L_adv in Eq. 5."""
    epsilon_adv: float = strength(PAPER.epsilon_adv, search=(0.05, 50.0), log=True, limits=(0.0, inf), surface=True)
    """ε_adv, L2 norm of δ."""
    adv_norm: str = PAPER.adv_norm
    """``absolute``, or ``relative``: ε_adv is a fraction of ||h'||."""

    def extra(self, losses: HiddenLoss, h: Tensor, mask: Tensor, draws: Tensor) -> Term:
        """Return ``α L_adv`` of Eq. 5, and mean ||δ|| / ||h'||."""
        from rrpo.masking import sample_norm

        delta = self.delta(losses, h, mask)
        relative = (sample_norm(delta, mask) / sample_norm(h.detach(), mask)).mean()
        return Term(self.alpha, losses(h + delta), {self.scalars[0]: relative})

    def delta(self, losses: HiddenLoss, h: Tensor, mask: Tensor) -> Tensor:
        """Return ``δ = ε_adv g / ||g||_2`` with ``g = grad_{h'} L_emo`` (Eq. 4), ``[B, T', D]``, per sample over its valid
        frames.

        With ``adv_norm = "relative"``, ``ε_adv ||h'||_2`` replaces ``ε_adv``. δ carries no gradient, and is 0 where g is 0.

        Args:
            losses: ``h' [B, T', D]`` -> losses ``[B]``. Their sum gives the same δ as Eq. 3's mean, because 1/B cancels.
            h: Encoder output ``[B, T', D]``.
            mask: Valid frames ``[B, T']``.
        """
        return along_gradient(losses, h, mask, self._size(h.detach().float(), mask))

    def _size(self, h: Tensor, mask: Tensor) -> Tensor:
        """Return ||δ|| of each sample ``[B]``."""
        from rrpo.masking import sample_norm

        if self.adv_norm == "relative":
            return self.epsilon_adv * sample_norm(h, mask)
        return h.new_full((len(h),), self.epsilon_adv)


def along_gradient(losses: HiddenLoss, x: Tensor, mask: Tensor, size: Tensor) -> Tensor:
    """Return the fast gradient perturbation ``size g / ||g||_2``, ``g = grad_x losses``, ``[B, T, D]``, over each sample's valid
    frames.

    It carries no gradient, and is 0 where g is 0.

    Args:
        losses: ``x [B, T, D]`` -> losses ``[B]``.
        x: Input to perturb ``[B, T, D]``.
        mask: Valid frames ``[B, T]``.
        size: L2 norm of each sample's perturbation ``[B]``.
    """
    import torch

    with torch.enable_grad():
        leaf = x.detach().float().requires_grad_()
        (g,) = torch.autograd.grad(losses(leaf.to(x.dtype)).sum(), leaf)
    g = g.masked_fill(~mask[..., None], 0.0)
    tiny = torch.finfo(g.dtype).tiny
    # scale first: the squares of a tiny gradient would underflow
    g = g / g.abs().amax((1, 2), keepdim=True).clamp(min=tiny)
    delta = size[:, None, None] * g / g.flatten(1).norm(dim=1).clamp(min=tiny)[:, None, None]
    return delta.to(x.dtype)
