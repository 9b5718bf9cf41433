"""Label smoothing (LS), Eq. 2. Off at ``epsilon = 0``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rrpo.regularizers.base import PAPER, ManipulationCheck, Regularizer, strength

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(Regularizer):
    """``y'_k = (1-ε) y_k + ε/K``: lowers confidence and calibration error."""

    label = "LS"
    paper = True
    source = "RRPO (arXiv 2512.04552); Szegedy et al. 2016 (arXiv 1512.00567)"
    equation = "Eq. 2: y'_k = (1-ε) y_k + ε/K"
    check = ManipulationCheck(scalar="rm_ece", direction=-1, text="ECE")
    epsilon: float = strength(PAPER.epsilon, off=0.0, search=(0.0, 0.3), limits=(0.0, 1.0), surface=True)
    """ε."""

    def targets(self, y: Tensor) -> Tensor:
        """Apply Eq. 2 to label distributions ``y [B, K]``, one-hot or vote shares -> ``[B, K]``."""
        return (1 - self.epsilon) * y + self.epsilon / y.shape[1]
