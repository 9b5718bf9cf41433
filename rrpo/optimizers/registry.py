"""Registry of policy optimizers and their options. Importing this module does not import torch."""

from __future__ import annotations

from rrpo.config import OptimizeConfig
from rrpo.optimizers.base import PolicyOptimizer, prompts_of
from rrpo.plugins import Choice, OptionRegistry


class OptimizerRegistry(OptionRegistry[PolicyOptimizer]):
    """Registry of optimizers, which may declare stage inputs of their own."""

    def inputs(self, choice: Choice) -> tuple[str, ...]:
        """Return `PolicyOptimizer.inputs` of the chosen optimizer; empty if it does not exist (`create` reports that)."""
        return self._create(choice.name, dict(choice.options)).inputs if choice.name in self else ()

    def check(self, config: OptimizeConfig) -> None:
        """Raise InputError if a batch does not hold whole groups of the chosen optimizer's samples.

        One that does not exist is accepted (`create` reports that).
        """
        if config.optimizer.name in self:
            prompts_of(self._create(config.optimizer.name, dict(config.optimizer.options)), config)


OPTIMIZERS = OptimizerRegistry("optimizer")
"""Policy optimizers by name; ``rrpo/optimizers/__init__.py`` registers those of this package."""
