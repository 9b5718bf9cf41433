"""REINFORCE with a leave-one-out baseline (RLOO: Kool et al. 2019; Ahmadian et al. 2024, arXiv 2402.14740).

``gradient = -mean_i (R_i - mean of the same prompt's other R) grad log pi(y_i)``, plus β times the gradient of the penalty. R
is the negative cost of the sampled speech: the losses of emotion reward and phone recognizer, weighted by the config. The
method needs only the value of the reward, not its gradient, and credits a token for its effect on later tokens.

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
    from rrpo.config import OptimizeConfig
    from rrpo.optimizers.rollout import Models


@dataclass(frozen=True, kw_only=True)
class Reinforce(Checked, PolicyOptimizer):
    """REINFORCE with a leave-one-out baseline."""

    version: ClassVar[int] = 1
    equation: ClassVar[str] = (
        "-mean_i (R_i - mean_{j != i} R_j) log π(y_i) + β KL(π || π_SFT), j over the same prompt's samples"
    )

    samples: int = searched(4, 2, 4, 8, within="[2, inf)")
    """k, roll-outs per prompt, 2 or more; the baseline of each is the mean of the others. arXiv 2402.14740: 2 and 4."""

    def updates(self, models: Models, batch: Batch, config: OptimizeConfig, state: State) -> Iterator[Iterator[Loss]]:
        """Yield one update."""
        from rrpo.optimizers.scoring import compute_rewards, policy_gradient

        outputs = compute_rewards(models, batch, config)
        cost = outputs.cost(config).view(self.samples, -1)  # one column per prompt
        advantage = (cost.mean(0) - cost) * self.samples / (self.samples - 1)  # mean of the others minus own
        yield policy_gradient(models, batch, config, outputs, advantage.flatten())
