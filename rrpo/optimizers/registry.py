"""The policy optimisers by name, and their options. Imports no torch."""

from __future__ import annotations

from rrpo.optimizers.base import PolicyOptimizer
from rrpo.optimizers.diffro import DiffRO
from rrpo.plugins import OptionRegistry

OPTIMIZERS: OptionRegistry[PolicyOptimizer] = OptionRegistry("optimizer")
"""Policy optimisers by name."""
OPTIMIZERS.register("diffro", DiffRO)
