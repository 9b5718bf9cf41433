"""Policy optimisation: the loop, and the optimisers that turn its roll-outs into losses.

An optimiser is one file beside ``diffro.py``, registered here; one of your own is a file that registers it
(``examples/reward_weighted.py``), passed by ``--plugin``. An arm selects it by
``ArmConfig(optimizer=OPTIMIZERS.choice("grpo", samples=8))``. Importing this package imports no torch.
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
