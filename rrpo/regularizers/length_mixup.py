"""Length-only mixup, the control of energy-adaptive mixup without its energy term. Off at ``mix_probability = 0``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rrpo.regularizers.energy_mixup import EnergyMixup

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LengthMixup(EnergyMixup):
    """Energy-adaptive mixup with the same segments and draws, but with λ by length only: only the labels differ."""

    label = "length-only mixup"
    control_of = "eam"
    version = 1
    source = "the control without energy of arXiv 2512.04551"
    equation = "Eq. 3 with λ = l_mix/l_i"
    scalars = ("length_lambda",)

    def label_weight(self, share: Tensor, log_ratio: Tensor) -> Tensor:
        """Return ``λ_i = l_mix/l_i`` ``[B]``, at most 1/2, independent of the energies."""
        return share
