"""A fixed temperature in the loss, a control of label smoothing: lower confidence with unchanged targets. Off at T = 1.

The training loss uses the logits times T, the reward the logits themselves. Up to training dynamics, this is post-hoc
temperature scaling with a preset T instead of a fitted one: a model whose loss uses ``z = T z'`` is rewarded by ``z / T``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from rrpo.regularizers.base import CONFIDENCE, Regularizer, SampleLoss, strength

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Temperature(Regularizer):
    """Multiply the logits by T in the training loss only, so that the frozen model is T times less sharp."""

    label = "temperature"
    control_of = "ls"
    version = 1
    source = "temperature scaling: Guo et al. 2017 (arXiv 1706.04599); fixed, and in the loss: ours"
    equation = "L(T z, y), T = 1 + excess; reward: log softmax(z)"
    check = CONFIDENCE
    excess: float = strength(1.0, off=0.0, search=(0.0, 4.0), limits=(0.0, inf))
    """T - 1; declared default."""

    def loss(self, inner: SampleLoss) -> SampleLoss:
        """Return the loss so far, with logits ``[B, K]`` multiplied by T."""

        def tempered(logits: Tensor, y: Tensor) -> Tensor:
            return inner(logits * (1 + self.excess), y)

        return tempered
