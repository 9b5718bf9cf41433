"""Plain mixup of whole utterances, a control of energy-adaptive mixup. Off at ``share = 0``.

Choices where images and speech differ:

1. Log-mel frames are interpolated, as features are in the source; energies then do not add as those of sounds do.
2. Both utterances begin together and keep their tempo. The mixture is as long as the longer one; where the shorter has ended, it
   is silence (the floor).
3. The host is the one with the larger weight, ``w = min(λ, 1 - λ)`` goes to the partner: which of a pair is called first is
   chance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rrpo.regularizers.base import Batch, ManipulationCheck, Regularizer, strength
from rrpo.regularizers.energy_mixup import mixed, other_sample

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Mixup(Regularizer):
    """Linear interpolation of two utterances' frames, and of their labels with the same weight."""

    label = "mixup"
    control_of = "eam"
    version = 1
    source = "Zhang et al. 2018 (arXiv 1710.09412)"
    equation = "F = (1-w) F_i + w F_j, (1-w) L(y_i) + w L(y_j), w = min(λ, 1-λ), λ ~ Beta(a, a)"
    scalars = ("mixup_weight",)
    check = ManipulationCheck(scalar="rm_smoothness", direction=+1, text="smoothness along interpolations")
    share: float = strength(1.0, off=0.0, search=(0.0, 1.0), limits=(0.0, 1.0))
    """Share of utterances that are mixed; the source mixes every one."""
    shape: float = strength(0.4, search=(0.1, 2.0), log=True, limits=(1e-3, 1e3))
    """a of Beta(a, a): the larger, the closer λ is to 1/2; the source's a is 0.1 to 0.4 on large data."""

    def draws(self, shape: torch.Size, seed: int, step: int) -> Tensor:
        """Uniforms ``[B, 3]``: whether to mix, partner, λ."""
        from rrpo import seeding

        return seeding.uniform((shape[0], 3), seed, "plain mixup", step)

    def mix(self, batch: Batch, draws: Tensor) -> Batch:
        """The mixtures, and every target with 1 - w and the partner's with w."""
        import torch

        from rrpo.masking import valid_mask

        u_apply, u_partner, u_weight = draws.unbind(1)
        partner, applied = other_sample(u_partner), u_apply < self.share
        weight = torch.where(applied, self.weight(u_weight), 0.0)
        silence = ~valid_mask(batch.lengths, batch.F.shape[1])[..., None]
        F = batch.F.masked_fill(silence, batch.signal.padding(batch.floor))
        F = torch.where(applied[:, None, None], F.lerp(F[partner], weight[:, None, None]), batch.F)
        longer = torch.maximum(batch.lengths, batch.lengths[partner])
        lengths = torch.where(applied, longer, batch.lengths)
        return replace(mixed(batch, F, partner, weight, self.scalars[0]), lengths=lengths)

    def weight(self, uniform: Tensor) -> Tensor:
        """``min(λ, 1 - λ)`` with λ ~ Beta(a, a), from uniforms ``[B]``: the Beta's quantile of the smaller half."""
        import torch
        from scipy.special import betaincinv

        half = uniform.double().cpu().numpy() / 2
        return torch.from_numpy(betaincinv(self.shape, self.shape, half)).to(uniform)
