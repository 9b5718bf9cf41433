"""Energy-adaptive mixup (EAM), Eq. 3. Off at ``mix_probability = 0``.

Choices where the paper is silent or has a misprint:

1. Eq. 3 prints y'_i twice, which would cancel λ. The second is read as the partner's label y'_j.
2. E_i is the energy of the host's *segment*, summed over its frames and mels in linear power; E_j likewise. It cancels in λ.
3. r is in dB, partner relative to host. The partner is any other row of the batch, which may be the same
   utterance where a batch contains it twice; the segments may lie anywhere.
4. l_mix never exceeds the partner's length. A silent segment (mean power within 3 dB of the floor), or a host of one frame, is
   not mixed: λ = 0 and F is unchanged, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rrpo.models.signals import LOG_MEL, Signal
from rrpo.regularizers.base import PAPER, SMOOTHNESS, Batch, Knob, Regularizer, strength

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SILENCE = 2.0
"""A segment is silent if its mean mel power is at most this many times the floor; declared default."""


@dataclass(frozen=True)
class Mixture:
    """Result of energy-adaptive mixup on a batch."""

    F: Tensor
    """Frames ``[B, T, M]`` with the partner's segment added."""
    partner: Tensor
    """Index j of each host's partner ``[B]``."""
    weight: Tensor
    """λ ``[B]``, 0 for unmixed utterances."""


@dataclass(frozen=True, kw_only=True)
class EnergyMixup(Regularizer):
    """Add a segment of a partner to each utterance, and its label with weight λ, to smooth the path between two utterances."""

    label = "EAM"
    paper = True
    source = "RRPO (arXiv 2512.04552); energy-adaptive mixup: arXiv 2512.04551"
    equation = "Eq. 3: (1-λ) L(y'_i) + λ L(y'_j), λ = (l_mix/l_i) E'_j/(E_i + E'_j), E'_j = E_i 10^(r/10)"
    scalars = ("lambda",)
    check = SMOOTHNESS
    mix_probability: float = strength(PAPER.mix_probability, off=0.0, search=(0.0, 1.0), limits=(0.0, 1.0))
    """Share of utterances that are mixed."""
    mix_db_low: float = PAPER.mix_db_low
    """r_min."""
    mix_db_high: float = PAPER.mix_db_high
    """r_max."""

    def knobs(self) -> tuple[Knob, ...]:
        """Search the range of r by its center and width: any two values give a valid range."""
        middle, span = (self.mix_db_low + self.mix_db_high) / 2, self.mix_db_high - self.mix_db_low
        centre = Knob(name="mix_db_centre", on=middle, low=-5.0, high=10.0)
        width = Knob(name="mix_db_width", on=span, low=0.0, high=20.0, limits=(0.0, math.inf))
        return (*self.own_knobs(), centre, width)

    @classmethod
    def at(cls, knobs: Mapping[str, float]) -> dict[str, Any]:
        """Convert center and width to the range of r."""
        centre, half = knobs["mix_db_centre"], knobs["mix_db_width"] / 2
        share = knobs["mix_probability"]
        return {"mix_probability": share, "mix_db_low": centre - half, "mix_db_high": centre + half}

    def draws(self, shape: torch.Size, seed: int, step: int) -> Tensor:
        """Return uniforms ``[B, 6]``: whether to mix, partner, length, ratio, position in the host and in the partner."""
        from rrpo import seeding

        return seeding.uniform((shape[0], 6), seed, "mixup", step)

    def mix(self, batch: Batch, draws: Tensor) -> Batch:
        """Apply Eq. 3: weight every target by 1 - λ and the partner's by λ."""
        mixture = self.mixture(batch.F, batch.lengths, draws, batch.floor, batch.signal)
        return mixed(batch, mixture.F, mixture.partner, mixture.weight, self.scalars[0])

    def mixture(self, F: Tensor, lengths: Tensor, draws: Tensor, floor: float, signal: Signal = LOG_MEL) -> Mixture:
        """Scale a segment of the partner to r dB relative to the host's segment and add it, log-mel frames in linear power.

        ``l_mix ~ U[1, min(l_i/2, l_j)]``, ``r ~ U[r_min, r_max]``, ``E'_j = E_i 10^(r/10)``, ``λ_i = (l_mix/l_i) E'_j / (E_i +
        E'_j)``.

        Args:
            F: Frames ``[B, T, M]``.
            lengths: Frames of each utterance ``[B]``.
            draws: Uniforms ``[B, 6]`` from the method `draws`.
            floor: Smallest mel power before the logarithm; determines what is silent.
            signal: What F contains; waveforms are added directly, as in the source (arXiv 2512.04551), and tokens are mixed as
                in `rrpo.models.signals.TokenDigits`.
        """
        import torch

        _, T, M = F.shape
        u_apply, u_partner, u_length, u_ratio, u_host, u_other = draws.to(F.device).unbind(1)
        partner = other_sample(u_partner)

        longest = torch.minimum(lengths // 2, lengths[partner])
        l_mix = 1 + _integer(u_length, longest)
        r = self.mix_db_low + (self.mix_db_high - self.mix_db_low) * u_ratio
        start = _integer(u_host, lengths - l_mix + 1)
        start_partner = _integer(u_other, lengths[partner] - l_mix + 1)

        time = torch.arange(T, device=F.device)[None, :]
        inside = ((time >= start[:, None]) & (time < (start + l_mix)[:, None]))[..., None]
        shifted = (time + (start_partner - start)[:, None]).clamp(0, T - 1)
        F_partner = F[partner[:, None], shifted]

        log_E_i, log_E_j = (
            signal.log_power(x).masked_fill(~inside, -math.inf).flatten(1).logsumexp(1) for x in (F, F_partner)
        )
        log_E_mix = log_E_i + r * (math.log(10) / 10)

        silent = math.log(SILENCE * floor) + torch.log(l_mix * M)
        applied = (u_apply < self.mix_probability) & (longest >= 1) & (log_E_i > silent) & (log_E_j > silent)
        added = signal.added(F, F_partner, (log_E_mix - log_E_j)[:, None, None])
        weight = self.label_weight(l_mix / lengths, log_E_mix - log_E_i)
        F = torch.where(inside & applied[:, None, None], added, F)
        return Mixture(F, partner, torch.where(applied, weight, 0.0))

    def label_weight(self, share: Tensor, log_ratio: Tensor) -> Tensor:
        """Return λ of Eq. 3 ``[B]``: the segment's share of the host times the partner's share of the energy in it.

        Args:
            share: ``l_mix/l_i [B]``.
            log_ratio: ``log E'_j/E_i [B]``.
        """
        return share * log_ratio.sigmoid()


def mixed(batch: Batch, F: Tensor, partner: Tensor, weight: Tensor, name: str) -> Batch:
    """Return the batch with frames ``F``; targets keep 1 - λ of their weight and the partner's get λ. Records mean λ as ``name``.

    Args:
        batch: Batch before mixing.
        F: Mixed frames ``[B, T, M]``.
        partner: Index of each host's partner ``[B]``.
        weight: λ ``[B]``.
        name: Name of the scalar.
    """
    hosts = [((1 - weight) * share, y) for share, y in batch.targets]
    partners = [(weight * share[partner], y[partner]) for share, y in batch.targets]
    return replace(batch, F=F, targets=(*hosts, *partners), scalars={**batch.scalars, name: weight.mean()})


def other_sample(uniform: Tensor) -> Tensor:
    """Return the index of a partner for each sample ``[B]``, never the sample itself unless it is the only one, from uniforms
    ``[B]``."""
    import torch

    B = len(uniform)
    host = torch.arange(B, device=uniform.device)
    return (host + 1 + _integer(uniform, host.new_full((B,), B - 1))) % B


def _integer(uniform: Tensor, count: Tensor) -> Tensor:
    """Return integers ``0 .. count-1`` from uniforms in (0, 1); 0 where the count is not positive."""
    return (uniform * count).long().minimum(count - 1).clamp(min=0)
