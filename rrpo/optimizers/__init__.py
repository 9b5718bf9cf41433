"""Policy optimisation: the loop, and the optimisers that turn its roll-outs into losses.

One of your own is a file that registers it (``examples/reinforce.py``), passed by ``--plugin``; an arm then selects it by
``ArmConfig(optimizer=OPTIMIZERS.choice("reinforce", samples=8))``. Importing this package imports no torch.
"""

from rrpo.optimizers.base import Batch, Loss, MicroBatch, PolicyOptimizer, State
from rrpo.optimizers.diffro import DiffRO
from rrpo.optimizers.registry import OPTIMIZERS

__all__ = ["OPTIMIZERS", "Batch", "DiffRO", "Loss", "MicroBatch", "PolicyOptimizer", "State"]
