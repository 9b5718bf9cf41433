"""Scaling of a gradient on its way back. At a negative scale it is gradient reversal (Ganin et al. 2016, arXiv 1505.07818), by
which layers before it learn to hide what layers after it predict."""

from __future__ import annotations

from torch import Tensor


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """Return ``x`` with its gradient multiplied by ``scale``; at 1 the identity, including the gradient."""
    return x.detach() + scale * (x - x.detach())
