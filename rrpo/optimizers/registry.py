"""Registry of policy optimizers and their options. Importing this module does not import torch."""

from __future__ import annotations

from rrpo.optimizers.base import PolicyOptimizer
from rrpo.plugins import Choice, OptionRegistry


class OptimizerRegistry(OptionRegistry[PolicyOptimizer]):
    """Registry of optimizers. Those of this package have their own versions, so that changing one does not make others stale."""

    def source(self, name: str) -> str:
        """Return the version of an implementation: the hash of the plugin file, or `PolicyOptimizer.version`."""
        version = self[name].version
        return super().source(name) or (f"version {version}" if version else "")

    def inputs(self, choice: Choice) -> tuple[str, ...]:
        """Return `PolicyOptimizer.inputs` of the chosen optimizer; empty if it does not exist (`create` reports that)."""
        return self._made(choice.name, dict(choice.options)).inputs if choice.name in self else ()


OPTIMIZERS = OptimizerRegistry("optimizer")
"""Policy optimizers by name; ``rrpo/optimizers/__init__.py`` registers those of this package."""
