"""REINFORCE with a leave-one-out baseline (RLOO: Kool et al. 2019; Ahmadian et al. 2024, arXiv 2402.14740).

``gradient = -mean_i (R_i - mean of the same prompt's other R) grad log pi(y_i)``, plus β times the gradient of the penalty. R is
the negative cost of the sampled speech: the emotion reward's loss and the phone recogniser's, by the config's weights. Only the
reward model's opinion is needed, not its gradient; what a token does to later ones is credited to it.

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rrpo.optimizers.base import Batch, Loss, PolicyOptimizer, State

if TYPE_CHECKING:
    from torch import Tensor

    from rrpo.config import OptimizeConfig
    from rrpo.optimizers.rollout import Models
    from rrpo.optimizers.scoring import Heard


@dataclass(frozen=True, kw_only=True)
class Reinforce(PolicyOptimizer):
    """REINFORCE with a leave-one-out baseline."""

    version: ClassVar[int] = 1

    samples: int = 4
    """k, roll-outs of each prompt, 2 or more; each one's baseline is the mean of the others. arXiv 2402.14740: 2 and 4."""

    def __post_init__(self) -> None:
        """Raises ValueError for fewer than two samples, which leave no others."""
        if self.samples < 2:
            raise ValueError(f"samples must be 2 or more, got {self.samples}")

    def updates(self, models: Models, batch: Batch, config: OptimizeConfig, state: State) -> Iterator[Iterator[Loss]]:
        """One update."""
        from rrpo.optimizers.scoring import hear

        heard = hear(models, batch, config)
        cost = heard.cost(config).view(self.samples, -1)  # a column a prompt
        advantage = (cost.mean(0) - cost) * self.samples / (self.samples - 1)  # the mean of the others, less the own
        yield self._losses(models, batch, config, heard, advantage.flatten())

    def _losses(
        self, models: Models, batch: Batch, config: OptimizeConfig, heard: Heard, advantage: Tensor
    ) -> Iterator[Loss]:
        from rrpo.optimizers.scoring import sampled_log_probs, score, split

        for part, frames in zip(split(models, batch), heard.frames, strict=True):
            scores = score(models, part, config.penalty)
            log_p = part.rollout.sums(sampled_log_probs(part.rollout, scores.logits))
            loss = config.beta * scores.penalty - advantage[part.rows] * log_p
            yield Loss(part, part.share * loss.mean(), heard.of(part), scores.kl.detach(), scores.log_p, frames)
