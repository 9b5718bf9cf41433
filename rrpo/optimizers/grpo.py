"""GRPO, group relative policy optimization (Shao et al. 2024, arXiv 2402.03300, Eq. 3 and 21).

A batch contains one group of k samples per prompt. Within a group, ``A_i = (R_i - mean R) / std R``. With
``ratio_t = pi(y_t | y_<t) / pi_old(y_t | y_<t)``, where pi_old is the sampling policy, the loss of a sample is

    (1 / |y|) sum_t [ -min(ratio_t A, clip(ratio_t, 1 - ε, 1 + ε) A) + β penalty_t ]

with several updates per batch. R is the negative cost of the sampled speech: the losses of emotion reward and phone recognizer,
weighted by the config. The source estimates the KL at the sampled tokens; here the penalty is the one shared by all optimizers,
over the full vocabulary.

Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rrpo.config import Checked
from rrpo.optimizers.base import Batch, Loss, PolicyOptimizer, State
from rrpo.plugins import searched

if TYPE_CHECKING:
    from torch import Tensor

    from rrpo.config import OptimizeConfig
    from rrpo.optimizers.rollout import Models
    from rrpo.optimizers.scoring import Rewards

EPSILON = 1e-4
"""Added to the standard deviation of a group, so that equal rewards give zero advantage."""


@dataclass(frozen=True, kw_only=True)
class GRPO(Checked, PolicyOptimizer):
    """Group relative policy optimization."""

    version: ClassVar[int] = 1
    equation: ClassVar[str] = (
        "mean_i (1/|y_i|) sum_t [-min(r_t A_i, clip(r_t, 1 - ε, 1 + ε) A_i) + β KL_t], A_i = (R_i - mean R) / std R of the group"
    )

    samples: int = searched(4, 2, 4, 8, within="[2, inf)")
    """k, group size: roll-outs per prompt, 2 or more. CosyVoice2's public recipe: 4; arXiv 2402.03300: 64."""
    epochs: int = searched(2, 1, 2, 4, within="[1, inf)")
    """μ, updates per batch, 1 or more; the first has ratio 1 and clips nothing. Declared default (arXiv 2402.03300: 1)."""
    clip: float = searched(0.2, 0.05, 0.5, log=True, within="(0, inf)")
    """ε, deviation of a ratio from 1 beyond which its gradient is dropped, range (0, inf). PPO's value; the source gives none."""
    normalize: bool = True
    """Whether advantages are divided by the standard deviation of the group. False: Dr. GRPO (arXiv 2503.20783)."""
    token_mean: bool = True
    """Whether the loss of a sample is the mean over its tokens. False: the sum, as in Dr. GRPO."""
    kl_in_reward: bool = False
    """Whether β weights ``log pi_old(y) - log pi_ref(y)`` in R, as in PPO, instead of the penalty in the loss. If True, the
    config's ``penalty`` is not used."""

    def updates(self, models: Models, batch: Batch, config: OptimizeConfig, state: State) -> Iterator[Iterator[Loss]]:
        """Yield `epochs` updates; advantages and the denominators of the ratios are those of the sampling policy."""
        from rrpo.optimizers.scoring import compute_rewards

        outputs = compute_rewards(models, batch, config)
        cost = outputs.cost(config)
        if self.kl_in_reward:
            cost = cost + config.beta * log_ratio(models, batch)
        advantage = self.advantages(cost)
        old: dict[int, Tensor] = {}
        for _ in range(self.epochs):
            yield self._losses(models, batch, config, outputs, advantage, old)

    def advantages(self, cost: Tensor) -> Tensor:
        """Return ``A [B]`` for ``cost [B]``, which is -R of k samples per prompt."""
        groups = cost.view(self.samples, -1)  # one column per prompt
        centred = groups.mean(0) - groups
        scale = groups.std(0) + EPSILON if self.normalize else 1.0
        return (centred / scale).flatten()

    def _losses(
        self,
        models: Models,
        batch: Batch,
        config: OptimizeConfig,
        outputs: Rewards,
        advantage: Tensor,
        old: dict[int, Tensor],
    ) -> Iterator[Loss]:
        from rrpo.optimizers.scoring import sampled_log_probs, score, split

        beta = 0.0 if self.kl_in_reward else config.beta
        for index, (part, frames) in enumerate(zip(split(models, batch), outputs.frames, strict=True)):
            rollout = part.rollout
            scores = score(models, part, config.penalty)
            log_p = sampled_log_probs(part.rollout, scores.logits)
            ratio = (log_p - old.setdefault(index, log_p.detach())).exp()  # 1 in the first update
            A = advantage[part.rows].repeat_interleave(rollout.counts)
            clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
            surrogate = -(ratio * A).minimum(clipped * A)
            tokens = rollout.counts if self.token_mean else 1
            loss = (rollout.sums(surrogate) + beta * scores.penalty) / tokens
            dropped = (ratio * A > clipped * A).to(ratio.dtype)
            values = outputs.of(part) | {"clipped": rollout.sums(dropped) / rollout.counts}
            yield Loss(part, part.share * loss.mean(), values, scores.kl.detach(), scores.log_p, frames)


def log_ratio(models: Models, batch: Batch) -> Tensor:
    """Return ``log pi(y) - log pi_ref(y)`` of each sample ``[B]`` under the current policy, without gradient."""
    import torch

    from rrpo.optimizers.rollout import merge
    from rrpo.optimizers.scoring import sampled_log_probs, split

    parts = []
    with torch.no_grad():
        for part in split(models, batch):
            arguments = part.prompts.prefix, part.rollout.tokens, part.rollout.counts
            log_p, reference = (
                sampled_log_probs(part.rollout, model.packed_logits(*arguments))
                for model in (models.policy, models.reference)
            )
            parts.append((part.rows, {"ratio": part.rollout.sums(log_p - reference)}))
    return merge(parts)["ratio"]
