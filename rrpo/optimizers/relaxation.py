"""Gumbel-Softmax relaxation of sampled tokens (the ``dtau/dtheta`` of Eq. 1), conditioned on the sample.

A roll-out is drawn first, without gradient. The Gumbel noise is then drawn from its posterior given that the sampled token won
(the truncated Gumbels of Maddison et al., arXiv 1411.0030), so that the relaxed tokens correspond to exactly the sampled ones.
Nothing is differentiated through the truncation: the noise is a constant.

The alternative, ``probabilities``, takes the gradient of the policy's own distribution, ``softmax(logits / tau)``: the same
estimator with G = 0, with less variance and more bias.

Known bias: softmax at tau > 0 is not the one-hot sample, but the straight-through estimator uses its gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MARGIN = 1e-4
"""Margin in nats by which the other classes stay below the sampled one, so that rounding cannot produce a tie."""


@torch.no_grad()
def conditional_gumbel(logits: Tensor, tokens: Tensor, noise: Tensor) -> Tensor:
    """Return Gumbel noise G with ``argmax(logits + G) = tokens``, distributed as Gumbel noise given that event.

    Args:
        logits: ``[..., V]``, unnormalized.
        tokens: ``[...]``, the sampled classes.
        noise: Uniforms in (0, 1), ``[..., V]``; the entry of the sampled class gives the maximum, the others the rest.
    """
    log_p = logits.log_softmax(-1)
    exponential = noise.log().neg_()  # -log of it is Gumbel noise
    chosen = tokens[..., None]
    # e^-maximum: the maximum of logits - logsumexp + G is Gumbel(0), whichever class it is
    winner = exponential.gather(-1, chosen)
    maximum = -log_p.gather(-1, chosen) - winner.log()
    # truncated at the maximum, less log p
    truncated = log_p.exp_().mul_(winner * (1 + MARGIN)).add_(exponential).log_().neg_()
    return truncated.scatter_(-1, chosen, maximum)


def no_noise(logits: Tensor, tokens: Tensor, noise: Tensor | None) -> Tensor:
    """Return G = 0, in place of `conditional_gumbel`."""
    return logits.new_zeros(())


RELAXATIONS: dict[str, Callable[..., Tensor]] = {"gumbel": conditional_gumbel, "probabilities": no_noise}
"""Functions that return G, by `rrpo.config.RELAXATIONS`."""


def soft_tokens(logits: Tensor, tokens: Tensor, noise: Tensor | None, tau: float, relaxation: str = "gumbel") -> Tensor:
    """Return ``softmax((logits + G) / tau)``: the relaxed tokens whose gradient the hard tokens use.

    Args:
        logits: ``[..., V]`` of only the V codes: specials and eos are excluded, so that the reward cannot act on length.
        tokens: ``[...]``.
        noise: Uniforms ``[..., V]``; None for the relaxation ``probabilities``.
        tau: Temperature of the relaxation, > 0.
        relaxation: One of `RELAXATIONS`.

    Returns:
        ``[..., V]``.
    """
    if tau <= 0:
        raise ValueError(f"tau must be positive, got {tau}; the papers use 0.8 to 2")
    return ((logits + RELAXATIONS[relaxation](logits, tokens, noise)) / tau).softmax(-1)


def straight_through(soft: Tensor, tokens: Tensor, codebook: Tensor) -> Tensor:
    """Return rows ``[..., d]`` of ``codebook [V, d]``: ``tokens [...]`` forward, ``soft [..., V] @ codebook`` backward.

    This equals a one-hot row forward and ``soft`` backward, multiplied by the codebook.
    """
    rows: Tensor = _StraightThrough.apply(soft, tokens, codebook)
    return rows


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, soft: Tensor, tokens: Tensor, codebook: Tensor) -> Tensor:
        ctx.save_for_backward(codebook)
        return codebook[tokens]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (codebook,) = ctx.saved_tensors
        return gradients[0] @ codebook.T, None, None


def temperature(step: int, steps: int, taus: tuple[float, ...]) -> float:
    """Return tau of a step: each of ``taus`` applies to an equal part of training (HPRO: 2 -> 1 -> 0.8)."""
    return taus[min(len(taus) - 1, step * len(taus) // max(1, steps))]
