"""The reward of Eq. 6 as a loss: ``R = -L`` of the frozen reward model on the policy's frames.

The paper does not define L at reward time (it prints R = -L_ser of Eq. 5), so there are three readings:

- ``hard_ce``: cross-entropy with the target emotion. The default for every arm: a smoothed target would by itself cap the
  reward.
- ``smoothed_ce``: cross-entropy with the target smoothed by Eq. 2.
- ``full_l_ser``: ``L_LS + α L_adv``, Eq. 5 with δ of Eq. 4 recomputed at every step. There is no mixup at reward time (a
  roll-out has no human-labeled partner), and δ is a constant to the gradient, as in fine-tuning.

Two more are bounded, as controls of robustness: a bounded reward limits what hacking can gain.

- ``bounded``: the target's probability, ``R = p = σ(s)`` with the log-odds s. This is PAR's sigmoid of the reward's distance
  from a reference reward (arXiv 2502.18770), with the log-odds 0 as the reference.
- ``clipped``: ``R = min(log p, log 0.9)``: no gradient once the reward model is confident.

ε, α and ε_adv are those of the reward model's fine-tuning; at their identity values the three readings agree. Additions of
plugins to the fine-tuning are not part of the reward.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from rrpo.config import REWARDS
from rrpo.models.reward_model import RewardModel
from rrpo.regularizers.adversarial import Adversarial
from rrpo.regularizers.label_smoothing import LabelSmoothing

SURE = 0.9
"""Probability of the target above which ``clipped`` does not increase."""
SMOOTHED = ("smoothed_ce", "full_l_ser")
"""Rewards that use the target of Eq. 2."""


def reward_loss(
    model: RewardModel,
    F: Tensor,
    lengths: Tensor,
    target: Tensor,
    reward: str = "hard_ce",
) -> Tensor:
    """Return ``-R [B]`` for each roll-out, differentiable in ``F``.

    Args:
        model: The frozen reward model, in evaluation mode (no dropout).
        F: Log-mel frames ``[B, T, M]``, decoded from relaxed tokens.
        lengths: Frames before the end of each roll-out ``[B]``; later ones get no gradient.
        target: Class index of the target emotion ``[B]``.
        reward: One of `REWARDS`.
    """
    if reward not in REWARDS:
        raise ValueError(f"unknown reward {reward!r}; use one of {', '.join(REWARDS)}")
    config = model.regularizers
    y = functional.one_hot(target, len(model.emotions)).float()
    if reward in SMOOTHED:
        y = LabelSmoothing.of(config).targets(y)
    h, mask = model.encode(F, lengths)

    def losses(h: Tensor) -> Tensor:
        return -(y * model.rewards(h, mask)).sum(1)

    if reward == "bounded":
        return -(-losses(h)).exp()
    if reward == "clipped":
        return losses(h).clamp(min=-math.log(SURE))
    if reward != "full_l_ser":
        return losses(h)
    delta = Adversarial.of(config).delta(losses, h, mask)
    return losses(h) + config.alpha * losses(h + delta)
