"""Gradient reversal (Ganin et al. 2016, arXiv 1505.07818): layers before it learn to hide what layers after it predict."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def reversed_gradient(x: Tensor, scale: float) -> Tensor:
    """Return ``x``; in the backward pass its gradient is multiplied by ``-scale``."""
    found: Tensor = _Reversed.apply(x, scale)
    return found


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradient, None
