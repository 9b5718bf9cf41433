"""The fast gradient method on the input frames, a control of Adv's location at h'. Off at ``alpha = 0``.

The reward model's gradient reaches the policy through the frames F, so a policy would perturb these. The perturbed frames are
encoded anew. The gradient and the loss there have different dropout masks, unlike those of Adv: there is no dropout after h'.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from rrpo.regularizers.adversarial import along_gradient
from rrpo.regularizers.base import PAPER, PGD_ACCURACY, HiddenLoss, Regularizer, Term, strength

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class InputGradient(Regularizer):
    """``α L(F + δ)``: the loss at frames perturbed along its own gradient."""

    label = "input FGM"
    control_of = "adv"
    version = 1
    source = "Goodfellow et al. 2015 (arXiv 1412.6572); with the L2 norm: Miyato et al. 2017 (arXiv 1605.07725)"
    equation = "L + α L(F + δ), δ = ε sqrt(l M) g/||g||, g = ∂L/∂F"
    term = "l_input"
    level = "input"
    check = PGD_ACCURACY
    alpha: float = strength(PAPER.alpha, off=0.0, search=(0.0, 2.0), limits=(0.0, inf))
    """α, weight of the term; Adv's value."""
    epsilon: float = strength(0.1, search=(0.01, 1.0), log=True, limits=(0.0, inf))
    """ε, root mean square of δ over an utterance's frames and mels, in nats of mel power (0.1 is 0.43 dB), or of the amplitude
    of waveforms, for which 0.1 is louder than speech; declared default."""

    def extra(self, losses: HiddenLoss, h: Tensor, mask: Tensor, draws: Tensor) -> Term:
        """Return the loss at ``F + δ``; here ``h`` is F ``[B, T, M]``."""
        size = self.epsilon * (mask.sum(1) * h.shape[2]).sqrt()
        return Term(self.alpha, losses(h + along_gradient(losses, h, mask, size)))
