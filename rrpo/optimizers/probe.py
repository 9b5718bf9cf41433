"""Measure the frozen reward model on the policy's samples: gradient norm and adversarial perturbation at h'.

Used for both the roll-outs of the curves and the samples of the checkpoints, and the same for all arms: the loss is the clean
cross-entropy with the target, whatever the arm's reward, and ε_adv is that of the reward model, whatever its α.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rrpo.masking import sample_norm
from rrpo.models.reward_model import RewardModel
from rrpo.regularizers.adversarial import Adversarial
from rrpo.regularizers.base import cross_entropy


@torch.no_grad()
def probe(model: RewardModel, F: Tensor, frames: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Run the encoder once over ``F [B, T, M]``, ``frames [B]``, ``target [B]``; return values ``[B]``.

    ``proxy``: log-probabilities ``[B, K]``. ``grad_h``: norm of the gradient of the loss at h'. ``relative_delta``: ||δ|| /
    ||h'|| of Eq. 4. ``l_emo``: the loss at h'. ``l_adv``: the loss at h' + δ.
    """
    h, mask = model.encode(F, frames)
    y = functional.one_hot(target, len(model.emotions)).float()

    def losses(h: Tensor) -> Tensor:
        return cross_entropy(model.classify(h, mask), y)

    delta = Adversarial.of(model.regularizers).delta(losses, h, mask)
    with torch.enable_grad():
        leaf = h.detach().requires_grad_()
        logits = model.classify(leaf, mask)
        (gradient,) = torch.autograd.grad(cross_entropy(logits, y).sum(), leaf)
    proxy = logits.detach().log_softmax(1)
    return {
        "proxy": proxy,
        "grad_h": sample_norm(gradient.float(), mask),
        "relative_delta": sample_norm(delta.float(), mask) / sample_norm(h.float(), mask).clamp(min=1e-12),
        "l_emo": -(y * proxy).sum(1),
        "l_adv": losses(h + delta),
    }


def probe_statistics(values: dict[str, Tensor]) -> dict[str, float]:
    """Return means of `probe` over the samples; ``proxy_l_adv_over_l_emo`` is the ratio of the two means."""
    mean = {name: float(values[name].mean()) for name in ("grad_h", "relative_delta", "l_emo", "l_adv")}
    return {
        "proxy_grad_h": mean["grad_h"],
        "proxy_relative_delta": mean["relative_delta"],
        "proxy_l_adv_over_l_emo": mean["l_adv"] / max(mean["l_emo"], 1e-12),
    }
