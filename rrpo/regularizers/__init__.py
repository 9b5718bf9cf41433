"""Regularisers of the reward model's fine-tuning: RRPO's three (Eq. 2 to 4), their sum (Eq. 5), their controls, and the place for
others.

Each is off by its identity value on the same code path, never by a branch: ``epsilon = 0``, ``mix_probability = 0``,
``alpha = 0``. All off equals the vanilla fine-tune bit for bit, and every draw is made whether it is used or not.

One of your own is a file that registers it (``examples/focal_loss.py``), passed by ``--plugin``. It becomes a component: arms of
the factorial, contrasts, knobs of studies, a manipulation check; a control (`Regularizer.control_of`) is an arm alone. Importing
this package imports no torch.
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
