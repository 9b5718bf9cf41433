"""Registration of the controls of RRPO's regularizers: one file and one arm each (`ablations.baselines`).

A control's own `Regularizer.version` is part of the key of the reward models that use it, so that a change of its source makes
exactly those stale.
"""

from __future__ import annotations

from rrpo.regularizers.focal_loss import FocalLoss
from rrpo.regularizers.hidden_noise import HiddenNoise
from rrpo.regularizers.input_gradient import InputGradient
from rrpo.regularizers.length_mixup import LengthMixup
from rrpo.regularizers.mixup import Mixup
from rrpo.regularizers.projected_gradient import ProjectedGradient
from rrpo.regularizers.registry import REGULARIZERS
from rrpo.regularizers.temperature import Temperature

CONTROLS = {
    "focal-loss": FocalLoss(),
    "temperature": Temperature(),
    "mixup": Mixup(),
    "length-mix": LengthMixup(),
    "fgm-input": InputGradient(),
    "pgd": ProjectedGradient(),
    "noise": HiddenNoise(),
}
"""Controls by name: those of label smoothing first, then of energy-adaptive mixup and of adversarial training."""
for _name, _control in CONTROLS.items():
    REGULARIZERS.register(_name, _control)
