"""RRPO's three regularisers of the reward model: Eq. 2 (label smoothing), Eq. 3 (energy-adaptive mixup), Eq. 4 and 5
(adversarial training).

Each is off by its identity value on the same code path, never by a branch: ``epsilon = 0``, ``mix_probability = 0``,
``alpha = 0``. All three off equals the vanilla fine-tune bit for bit, and every draw is made whether it is used or not.

Choices where the paper is silent or misprints:

1. Eq. 3 prints y'_i twice, which would make λ do nothing. The second is read as the partner's label y'_j.
2. E_i is the energy of the host's *segment*, summed over its frames and mels in linear power; E_j likewise. It cancels
   in λ.
3. r is in dB, partner relative to host. The partner is any other utterance of the batch, the segments lie anywhere.
4. l_mix never exceeds the partner's length. A silent segment (mean power within 3 dB of the floor), or a host of one
   frame, is not mixed: λ = 0 and F is left as it is, bit for bit.
5. δ acts on the frame-level encoder output h', before pooling, on valid frames only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rrpo import seeding
from rrpo.config import RegularizerConfig
from rrpo.masking import sample_norm

if TYPE_CHECKING:
    from rrpo.models.reward_model import RewardModel

SILENCE = 2.0
"""A segment is silent if its mean mel power is at most this many times the floor; declared default."""


def smooth_labels(y: Tensor, epsilon: float) -> Tensor:
    """Eq. 2, ``y'_k = (1-ε) y_k + ε/K``: label distributions ``y [B, K]`` -> ``[B, K]``. Off at ``ε = 0``."""
    return (1 - epsilon) * y + epsilon / y.shape[1]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """``-sum_k y_k log p_k``: ``logits [B, K], y [B, K]`` -> ``[B]``."""
    return -(y * logits.log_softmax(1)).sum(1)


@dataclass(frozen=True)
class Mixture:
    """What energy-adaptive mixup made of a batch."""

    F: Tensor
    """Log-mel frames ``[B, T, M]`` with the partner's segment added."""
    partner: Tensor
    """Index j of each host's partner ``[B]``."""
    weight: Tensor
    """λ ``[B]``, 0 where nothing was mixed."""


def mixup_draws(batch: int, seed: int, step: int, device: str | torch.device = "cpu") -> Tensor:
    """The uniforms ``[B, 6]`` that `energy_adaptive_mixup` uses in one step, the same whatever the config."""
    return seeding.uniform((batch, 6), seed, "mixup", step, device=device)


def energy_adaptive_mixup(
    F: Tensor, lengths: Tensor, draws: Tensor, config: RegularizerConfig, floor: float
) -> Mixture:
    """Eq. 3's mixture: a segment of the partner is scaled to r dB of the host's and added to it in linear power.

    ``l_mix ~ U[1, min(l_i/2, l_j)]``, ``r ~ U[r_min, r_max]``, ``E'_j = E_i 10^(r/10)``,
    ``λ_i = (l_mix/l_i) E'_j / (E_i + E'_j)``. Off at ``mix_probability = 0``.

    Args:
        F: Log-mel frames ``[B, T, M]``.
        lengths: Frames of each utterance ``[B]``.
        draws: Uniforms ``[B, 6]`` of `mixup_draws`.
        config: Probability and dB range.
        floor: Smallest mel power before the logarithm; what counts as silence hangs on it.
    """
    B, T, M = F.shape
    u_apply, u_partner, u_length, u_ratio, u_host, u_other = draws.to(F.device).unbind(1)
    host = torch.arange(B, device=F.device)
    partner = (host + 1 + _integer(u_partner, lengths.new_full((B,), B - 1))) % B

    longest = torch.minimum(lengths // 2, lengths[partner])
    l_mix = 1 + _integer(u_length, longest)
    r = config.mix_db_low + (config.mix_db_high - config.mix_db_low) * u_ratio
    start = _integer(u_host, lengths - l_mix + 1)
    start_partner = _integer(u_other, lengths[partner] - l_mix + 1)

    time = torch.arange(T, device=F.device)[None, :]
    inside = ((time >= start[:, None]) & (time < (start + l_mix)[:, None]))[..., None]
    shifted = (time + (start_partner - start)[:, None]).clamp(0, T - 1)
    F_partner = F[partner[:, None], shifted]

    log_E_i = F.masked_fill(~inside, -math.inf).flatten(1).logsumexp(1)
    log_E_j = F_partner.masked_fill(~inside, -math.inf).flatten(1).logsumexp(1)
    log_E_mix = log_E_i + r * (math.log(10) / 10)

    silent = math.log(SILENCE * floor) + torch.log(l_mix * M)
    mixed = (u_apply < config.mix_probability) & (longest >= 1) & (log_E_i > silent) & (log_E_j > silent)
    added = torch.logaddexp(F, F_partner + (log_E_mix - log_E_j)[:, None, None])
    weight = (l_mix / lengths) * torch.sigmoid(log_E_mix - log_E_i)
    return Mixture(torch.where(inside & mixed[:, None, None], added, F), partner, torch.where(mixed, weight, 0.0))


def adversarial_delta(loss: Callable[[Tensor], Tensor], h: Tensor, mask: Tensor, config: RegularizerConfig) -> Tensor:
    """Eq. 4, ``g = grad_{h'} L_emo``, ``δ = ε_adv g / ||g||_2`` for each sample, over its valid frames: ``[B, T', D]``.

    With ``adv_norm = "relative"``, ``ε_adv ||h'||_2`` stands for ``ε_adv``. δ carries no gradient, and is 0 where g is.

    Args:
        loss: ``h' [B, T', D]`` -> per-sample losses ``[B]``. Their sum serves as well as Eq. 3's mean: 1/B cancels.
        h: Encoder output ``[B, T', D]``.
        mask: Valid frames ``[B, T']``.
        config: ε_adv and its norm.
    """
    with torch.enable_grad():
        leaf = h.detach().float().requires_grad_()
        (g,) = torch.autograd.grad(loss(leaf.to(h.dtype)).sum(), leaf)
    g = g.masked_fill(~mask[..., None], 0.0)
    tiny = torch.finfo(g.dtype).tiny
    g = g / g.abs().amax((1, 2), keepdim=True).clamp(min=tiny)  # squares of a tiny gradient would underflow
    size = _adversarial_norm(h.detach().float(), mask, config)
    delta = size[:, None, None] * g / g.flatten(1).norm(dim=1).clamp(min=tiny)[:, None, None]
    return delta.to(h.dtype)


def robust_loss(
    model: RewardModel, F: Tensor, lengths: Tensor, y: Tensor, config: RegularizerConfig, draws: Tensor
) -> dict[str, Tensor]:
    """Eq. 5, ``L_ser = L_emo + α L_adv``, with all that Eq. 2-4 put into it.

    ``L_emo = mean_i[(1-λ_i) L_LS(ŷ_i, y'_i) + λ_i L_LS(ŷ_i, y'_j)]`` (Eq. 3, second label read as the partner's) and
    L_adv is the same at ``h' + δ``. L_adv is computed at ``α = 0`` too: it then adds exact zeros.

    Args:
        model: The reward model.
        F: Log-mel frames ``[B, T, M]``.
        lengths: Frames of each utterance ``[B]``.
        y: Labels before smoothing, one-hot or vote shares ``[B, K]``.
        config: The three regularisers.
        draws: Uniforms ``[B, 6]`` of `mixup_draws`.

    Returns:
        Scalars: ``loss`` with its graph; ``l_emo``, ``l_adv``, ``lambda`` (mean λ) and ``relative_delta``
        (mean ||δ||/||h'||) without.
    """
    smoothed = smooth_labels(y, config.epsilon)
    mixture = energy_adaptive_mixup(F, lengths, draws, config, model.floor)
    weight, other = mixture.weight, smoothed[mixture.partner]
    h, mask = model.encode(mixture.F, lengths)

    def losses(h: Tensor) -> Tensor:
        logits = model.classify(h, mask)
        return (1 - weight) * cross_entropy(logits, smoothed) + weight * cross_entropy(logits, other)

    l_emo = losses(h).mean()
    delta = adversarial_delta(losses, h, mask, config)
    l_adv = losses(h + delta).mean()
    return {
        "loss": l_emo + config.alpha * l_adv,
        "l_emo": l_emo.detach(),
        "l_adv": l_adv.detach(),
        "lambda": weight.mean(),
        "relative_delta": (sample_norm(delta, mask) / sample_norm(h.detach(), mask)).mean(),
    }


def _integer(uniform: Tensor, count: Tensor) -> Tensor:
    """Integers ``0 .. count-1`` from uniforms in (0, 1); 0 where the count is not positive."""
    return torch.minimum((uniform * count).long(), count - 1).clamp(min=0)


def _adversarial_norm(h: Tensor, mask: Tensor, config: RegularizerConfig) -> Tensor:
    """||δ|| of each sample ``[B]``."""
    if config.adv_norm == "relative":
        return config.epsilon_adv * sample_norm(h, mask)
    return torch.full_like(h[:, 0, 0], config.epsilon_adv)
