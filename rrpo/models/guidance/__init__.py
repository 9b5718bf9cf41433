"""Guided decoding: methods that change the distribution from which the SFT policy samples, without training a policy.

An arm selects one by ``ArmConfig(guidance=GUIDANCE.choice("classifier-free", gamma=1.5), tag_dropout=0.15)``. Importing this
package does not import torch.
"""

from rrpo.models.guidance.base import Guidance
from rrpo.models.guidance.classifier_free import ClassifierFree
from rrpo.models.guidance.mixture import Mixture
from rrpo.models.guidance.soft_label import SoftLabel
from rrpo.plugins import OptionRegistry

GUIDANCE: OptionRegistry[Guidance] = OptionRegistry("guidance")
"""Guidance methods by name."""
GUIDANCE.register("classifier-free", ClassifierFree)
GUIDANCE.register("soft-label", SoftLabel)
GUIDANCE.register("mixture", Mixture)

__all__ = ["GUIDANCE", "ClassifierFree", "Guidance", "Mixture", "SoftLabel"]
