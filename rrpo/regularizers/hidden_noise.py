"""Gaussian noise at h', the control of Adv without the gradient. Off at ``alpha = 0``."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from rrpo.regularizers.base import PAPER, PGD_ACCURACY, HiddenLoss, Regularizer, Term, strength

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class HiddenNoise(Regularizer):
    """``α L(h' + δ)`` as in Eq. 5, with δ of Adv's norm but in a random direction."""

    label = "noise"
    control_of = "adv"
    version = 1
    source = "training with noise: Bishop 1995; at the size of RRPO's Adv"
    equation = "L + α L(h' + δ), δ = ε n/||n||, n ~ N(0, I) over [T', D]"
    term = "l_noise"
    check = PGD_ACCURACY
    alpha: float = strength(PAPER.alpha, off=0.0, search=(0.0, 2.0), limits=(0.0, inf))
    """α, weight of the term; Adv's value."""
    epsilon: float = strength(PAPER.epsilon_adv, search=(0.05, 50.0), log=True, limits=(0.0, inf))
    """ε, L2 norm of δ over ``[T', D]``; Adv's value."""

    def draws(self, shape: torch.Size, seed: int, step: int) -> Tensor:
        """Return uniforms ``[B, T M]``, one per value of F; h' has fewer values, because its frames are subsampled."""
        from rrpo import seeding

        B, T, M = shape
        return seeding.uniform((T * M, B), seed, "hidden noise", step).T

    def extra(self, losses: HiddenLoss, h: Tensor, mask: Tensor, draws: Tensor) -> Term:
        """Return the loss at ``h' + δ``."""
        return Term(self.alpha, losses(h + self.delta(h, mask, draws)))

    def delta(self, h: Tensor, mask: Tensor, draws: Tensor) -> Tensor:
        """Return δ ``[B, T', D]``, 0 on padding. Draws repeat if h' has more values than there are draws."""
        import torch

        _, T, D = h.shape
        columns = torch.arange(T * D, device=h.device) % draws.shape[1]
        noise = torch.special.ndtri(draws[:, columns]).view_as(h).masked_fill(~mask[..., None], 0.0)
        return self.epsilon * noise / noise.flatten(1).norm(dim=1)[:, None, None]
