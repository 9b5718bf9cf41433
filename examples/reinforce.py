"""REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, arXiv 2402.14740): a policy optimiser as a plugin.

``gradient = -mean_i (R_i - mean of the same prompt's other R) grad log pi(y_i)``, plus β times the gradient of the KL. R is the
negative cost of the sampled speech: the emotion reward's loss and the phone recogniser's, by the config's weights.

    python -m ablations.run --plugin examples/reinforce.py ...
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from rrpo.config import OptimizeConfig
from rrpo.optimizers import OPTIMIZERS, Batch, Loss, PolicyOptimizer, State
from rrpo.optimizers.rollout import Models
from rrpo.optimizers.scoring import Heard, hear, sampled_log_probs, score, split


@dataclass(frozen=True, kw_only=True)
class Reinforce(PolicyOptimizer):
    """Policy gradient: no gradient of the reward model is needed, only its opinion."""

    samples: int = 4
    """Roll-outs of each prompt, 2 or more; each one's baseline is the mean of the others."""

    def __post_init__(self) -> None:
        """Raises ValueError for fewer than two samples, which leave no others."""
        if self.samples < 2:
            raise ValueError(f"samples must be 2 or more, got {self.samples}")

    def updates(self, models: Models, batch: Batch, config: OptimizeConfig, state: State) -> Iterator[Iterator[Loss]]:
        """One update."""
        heard = hear(models, batch, config)
        cost = heard.cost(config).view(self.samples, -1)  # a column a prompt
        advantage = (cost.mean(0) - cost) * self.samples / (self.samples - 1)  # the mean of the others, less the own
        yield self._losses(models, batch, config, heard, advantage.flatten())

    def _losses(
        self, models: Models, batch: Batch, config: OptimizeConfig, heard: Heard, advantage: Tensor
    ) -> Iterator[Loss]:
        for part, frames in zip(split(models, batch), heard.frames, strict=True):
            scores = score(models, part)
            log_p = part.rollout.sums(sampled_log_probs(part, scores.logits))
            loss = config.beta * scores.kl - advantage[part.rows] * log_p
            values = {name: losses[part.rows] for name, losses in heard.losses.items()}
            yield Loss(part, part.share * loss.mean(), values, scores.kl.detach(), scores.log_p, frames)


OPTIMIZERS.register("reinforce", Reinforce)
