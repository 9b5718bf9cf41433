"""Gumbel-Softmax relaxation of sampled tokens (the ``dtau/dtheta`` of Eq. 1), conditioned on the sample.

A roll-out is drawn first, without gradient. Afterwards the Gumbel noise is drawn from its posterior given that the sampled
token won (the truncated Gumbels of Maddison et al., arXiv 1411.0030), so that the relaxed tokens belong to the very tokens that
were sampled. Nothing is differentiated through the truncation: the noise is a constant.

The alternative, ``probabilities``, takes the gradient of the policy's own distribution, ``softmax(logits / tau)``: the same
estimator with G = 0, less noisy and more biased.

Known bias: softmax at tau > 0 is not the one-hot sample, and the straight-through estimator uses its gradient all the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

MARGIN = 1e-4
"""By how much (nats) the other classes stay below the sampled one, so that rounding makes no tie."""


@torch.no_grad()
def conditional_gumbel(logits: Tensor, tokens: Tensor, noise: Tensor) -> Tensor:
    """Gumbel noise G with ``argmax(logits + G) = tokens``, distributed as Gumbel noise given that event.

    Args:
        logits: ``[..., V]``, unnormalised.
        tokens: ``[...]``, the sampled classes.
        noise: Uniforms in (0, 1), ``[..., V]``; the entry of the sampled class makes the maximum, the others the rest.
    """
    p = logits.softmax(-1)
    exponential = -torch.log(noise)  # -log of it is Gumbel noise
    chosen = tokens[..., None]
    first = exponential.gather(
        -1, chosen
    )  # e^-maximum: the maximum of logits - logsumexp + G is Gumbel(0), whichever class it is
    others = -exponential.addcmul(p, first * (1 + MARGIN)).log_()  # Gumbel(log p) truncated at the maximum, less log p
    top = torch.logsumexp(logits, -1, keepdim=True) - logits.gather(-1, chosen) - first.log()
    return others.scatter_(-1, chosen, top)


def no_noise(logits: Tensor, tokens: Tensor, noise: Tensor) -> Tensor:
    """G = 0, in `conditional_gumbel`'s place."""
    return logits.new_zeros(())


RELAXATIONS = {"gumbel": conditional_gumbel, "probabilities": no_noise}
"""What stands for G, by `rrpo.config.RELAXATIONS`."""


def soft_tokens(logits: Tensor, tokens: Tensor, noise: Tensor, tau: float, relaxation: str = "gumbel") -> Tensor:
    """``softmax((logits + G) / tau)``: what the hard tokens take their gradient from.

    Args:
        logits: ``[B, N, V]`` of the V codes alone: specials and eos are left out, so the reward cannot push on length.
        tokens: ``[B, N]``.
        noise: Uniforms ``[B, N, V]``.
        tau: Temperature of the relaxation, > 0.
        relaxation: One of `RELAXATIONS`.

    Returns:
        ``[B, N, V]``.
    """
    if tau <= 0:
        raise ValueError(f"tau must be positive, got {tau}; the papers use 0.8 to 2")
    return ((logits + RELAXATIONS[relaxation](logits, tokens, noise)) / tau).softmax(-1)


def straight_through(soft: Tensor, tokens: Tensor) -> Tensor:
    """``[B, N, V]``: one-hot of ``tokens [B, N]`` forwards, ``soft [B, N, V]`` backwards."""
    hard = torch.zeros_like(soft).scatter_(-1, tokens[..., None], 1.0)
    return hard - soft.detach() + soft


def temperature(step: int, steps: int, taus: tuple[float, ...]) -> float:
    """Tau of a step: ``taus`` in equal parts of the training (HPRO: 2 -> 1 -> 0.8)."""
    return taus[min(len(taus) - 1, step * len(taus) // max(1, steps))]
