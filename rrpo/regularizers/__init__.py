"""Regularizers of the reward model's fine-tuning: RRPO's three (Eq. 2 to 4), their sum (Eq. 5), their controls, and plugins.

At its identity value each regularizer is off, on the same code path and without a branch: ``epsilon = 0``, ``mix_probability =
0``, ``alpha = 0``. All off equals vanilla fine-tuning bit for bit, and every random number is drawn whether it is used or not.

To add one, register it in a file (``examples/focal_loss.py``) and pass that by ``--plugin``. It becomes a component: arms of
the factorial, contrasts, strengths in studies, a manipulation check. A control (`Regularizer.control_of`) becomes only an arm.
Importing this package imports no torch.
"""

from rrpo.regularizers.adversarial import Adversarial
from rrpo.regularizers.base import (
    Batch,
    HiddenLoss,
    Knob,
    ManipulationCheck,
    Regularizer,
    SampleLoss,
    Term,
    cross_entropy,
    strength,
)
from rrpo.regularizers.controls import CONTROLS
from rrpo.regularizers.energy_mixup import EnergyMixup
from rrpo.regularizers.label_smoothing import LabelSmoothing
from rrpo.regularizers.objective import objective, robust_loss, scalars_of
from rrpo.regularizers.registry import REGULARIZERS, active, chosen, configured, switched_on

__all__ = [
    "CONTROLS",
    "REGULARIZERS",
    "Adversarial",
    "Batch",
    "EnergyMixup",
    "HiddenLoss",
    "Knob",
    "LabelSmoothing",
    "ManipulationCheck",
    "Regularizer",
    "SampleLoss",
    "Term",
    "active",
    "chosen",
    "configured",
    "cross_entropy",
    "objective",
    "robust_loss",
    "scalars_of",
    "strength",
    "switched_on",
]
