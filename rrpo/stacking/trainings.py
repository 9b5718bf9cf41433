"""Stacks of the stages ``sft``, ``pretrain`` and ``finetune``: policies and reward models in training.

Batches, regularizers, losses, dropout, clipping and Adam are separate for each member. A stack runs the networks: all of a
policy, and the encoder of a reward model (its head is small, and Eq. 4 differentiates each member's own loss).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rrpo.models.reward_model import RewardModel
from rrpo.stacking.encoders import Encoders, dropout_masks
from rrpo.stacking.lockstep import Ask
from rrpo.stacking.policies import StackedPolicy
from rrpo.stacking.stack import Proxy, Stack


class PolicyTrainings(Stack):
    """Policies in supervised fine-tuning."""

    def join(self, ask: Ask, models: Any) -> Any:
        """Add the policy of a member."""
        ask("join", models)
        return Proxy(models, "policy", ("logits", "packed_logits"), ask)

    def collect(self, models: list[Any]) -> list[None]:
        """Stack the policies."""
        self.policy = StackedPolicy(models)
        self.trained = self.policy.parameters
        return [None] * len(models)


class RewardModelTrainings(Stack):
    """Reward models in pre-training or fine-tuning."""

    def join(self, ask: Ask, models: Any) -> Any:
        """Add the reward model of a member."""
        ask("join", models)
        return _RewardModel(models, "encoders", ("encode",), ask)

    def collect(self, models: list[Any]) -> list[None]:
        """Stack the reward models."""
        self.encoders = self.trained = Encoders(models)
        return [None] * len(models)


class _RewardModel(Proxy):
    """Reward model whose encoder runs in the stack, with the dropout that the model itself would draw."""

    _model: RewardModel

    def _sent(self, name: str) -> Any:
        send = super()._sent(name)
        return lambda F, lengths: send(F, lengths, dropout_masks(self._model, F))

    def __call__(self, F: Tensor, lengths: Tensor) -> Tensor:
        """See `RewardModel.forward`."""
        return self._model.classify(*self.encode(F, lengths))
