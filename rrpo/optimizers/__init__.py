"""Policy optimization: the training loop, and the optimizers that compute losses from its roll-outs.

An optimizer is one file beside ``diffro.py``, registered here. Your own optimizer is a file that registers it, passed with
``--plugin`` (see ``examples/reward_weighted.py``). An arm selects one by
``ArmConfig(optimizer=OPTIMIZERS.choice("grpo", samples=8))``. Importing this package does not import torch.
"""

from rrpo.optimizers.base import Batch, Loss, MicroBatch, PolicyOptimizer, State
from rrpo.optimizers.diffro import DiffRO
from rrpo.optimizers.emo_dpo import EmoDPO
from rrpo.optimizers.grpo import GRPO
from rrpo.optimizers.registry import OPTIMIZERS
from rrpo.optimizers.reinforce import Reinforce

OPTIMIZERS.register("diffro", DiffRO)
OPTIMIZERS.register("reinforce", Reinforce)
OPTIMIZERS.register("grpo", GRPO)
OPTIMIZERS.register("emo-dpo", EmoDPO)

__all__ = [
    "GRPO",
    "OPTIMIZERS",
    "Batch",
    "DiffRO",
    "EmoDPO",
    "Loss",
    "MicroBatch",
    "PolicyOptimizer",
    "Reinforce",
    "State",
]
