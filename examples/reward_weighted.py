"""An optimizer as a plugin: exponentially weighted samples (advantage-weighted regression, Peng et al. 2019, arXiv 1910.00177).

``gradient = -mean_i (k w_i - 1) grad log pi(y_i)``, plus β times the gradient of the KL penalty, where w is the softmax of R / T
over the k samples of a prompt: better samples become more likely, worse ones less likely. R is the negative cost of the
sampled speech: the losses of the emotion reward and of the phone recognizer, with the weights of the config.

    python -m ablations.run --plugin examples/reward_weighted.py --grid loo --arms sft,diffro,reward-weighted
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rrpo.arms import ARMS
from rrpo.config import OptimizeConfig
from rrpo.optimizers import OPTIMIZERS, Batch, Loss, PolicyOptimizer, State
from rrpo.optimizers.rollout import Models
from rrpo.optimizers.scoring import compute_rewards, policy_gradient


@dataclass(frozen=True, kw_only=True)
class RewardWeighted(PolicyOptimizer):
    """Policy gradient whose advantages are a softmax of the rewards."""

    samples: int = 4
    """k, roll-outs per prompt, 2 or more."""
    temperature: float = 1.0
    """T, in nats of reward; as T approaches 0, only the best sample has weight; range (0, inf)."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        if self.samples < 2:
            raise ValueError(f"samples must be 2 or more, got {self.samples}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")

    def updates(self, models: Models, batch: Batch, config: OptimizeConfig, state: State) -> Iterator[Iterator[Loss]]:
        """Yield the policy-gradient loss of one update."""
        outputs = compute_rewards(models, batch, config)
        cost = outputs.cost(config).view(self.samples, -1)  # [k, prompts]
        advantage = self.samples * (-cost / self.temperature).softmax(0) - 1
        yield policy_gradient(models, batch, config, outputs, advantage.flatten())


OPTIMIZERS.register("reward-weighted", RewardWeighted)
ARMS.register("reward-weighted", replace(ARMS["diffro"], optimizer=OPTIMIZERS.choice("reward-weighted")))
