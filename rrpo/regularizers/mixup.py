"""Plain mixup of whole utterances, a control of energy-adaptive mixup. Off at ``share = 0``.

Choices where speech differs from images:

1. Log-mel frames are interpolated, as features are in the source; their energies do not add as those of sounds do.
2. Both utterances start together and keep their tempo. The mixture has the length of the longer one; after its end, the shorter
   one is silence (the floor).
3. The host has the larger weight, and ``w = min(λ, 1 - λ)`` goes to the partner: the order within a pair is random.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rrpo.regularizers.base import SMOOTHNESS, Batch, Regularizer, strength
from rrpo.regularizers.energy_mixup import mixed, other_sample

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Mixup(Regularizer):
    """Linear interpolation of the frames of two utterances, and of their labels with the same weight."""

    label = "mixup"
    control_of = "eam"
    version = 1
    source = "Zhang et al. 2018 (arXiv 1710.09412)"
    equation = "F = (1-w) F_i + w F_j, (1-w) L(y_i) + w L(y_j), w = min(λ, 1-λ), λ ~ Beta(a, a)"
    scalars = ("mixup_weight",)
    check = SMOOTHNESS
    share: float = strength(1.0, off=0.0, search=(0.0, 1.0), limits=(0.0, 1.0))
    """Share of utterances that are mixed; the source mixes all."""
    shape: float = strength(0.4, search=(0.1, 2.0), log=True, limits=(1e-3, 1e3))
    """a of Beta(a, a): a larger a moves λ closer to 1/2; the source's a is 0.1 to 0.4 on large data."""

    def draws(self, shape: torch.Size, seed: int, step: int) -> Tensor:
        """Return uniforms ``[B, 3]``: whether to mix, partner, λ."""
        from rrpo import seeding

        return seeding.uniform((shape[0], 3), seed, "plain mixup", step)

    def mix(self, batch: Batch, draws: Tensor) -> Batch:
        """Return the mixtures, with every target weighted by 1 - w and the partner's by w."""
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
        """Return ``min(λ, 1 - λ)`` with λ ~ Beta(a, a) from uniforms ``[B]``, as the quantile of the distribution's lower
        half."""
        import torch
        from scipy.special import betaincinv

        half = uniform.double().cpu().numpy() / 2
        return torch.from_numpy(betaincinv(self.shape, self.shape, half)).to(uniform)
