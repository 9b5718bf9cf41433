"""The policy optimisers by name, and their options. Imports no torch."""

from __future__ import annotations

from rrpo.optimizers.base import PolicyOptimizer
from rrpo.plugins import Choice, OptionRegistry


class OptimizerRegistry(OptionRegistry[PolicyOptimizer]):
    """Optimisers by name; the package's own carry a version of their own, so that one that changes makes no other stale."""

    def source(self, name: str) -> str:
        """What tells this implementation from its other versions: the plugin file's hash, or `PolicyOptimizer.version`."""
        version = self[name].version
        return super().source(name) or (f"version {version}" if version else "")

    def inputs(self, choice: Choice) -> tuple[str, ...]:
        """`PolicyOptimizer.inputs` of the one that was chosen; none where it is not there, which `create` will say."""
        return self._made(choice.name, dict(choice.options)).inputs if choice.name in self else ()


OPTIMIZERS = OptimizerRegistry("optimizer")
"""Policy optimisers by name; ``rrpo/optimizers/__init__.py`` registers the package's own."""
