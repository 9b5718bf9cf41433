"""What reward models hear, as mixtures need it: how to scale, add and measure log-mel frames or waveforms. Imports no torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Signal(Protocol):
    """Frames ``F [B, T, M]`` of one kind; gains and powers are natural logarithms of power ratios."""

    def log_power(self, F: Tensor) -> Tensor:
        """Of each value of F."""

    def scaled(self, F: Tensor, log_gain: Tensor | float) -> Tensor:
        """F, louder by ``log_gain``."""

    def added(self, F: Tensor, other: Tensor) -> Tensor:
        """Both sounds at once."""

    def padding(self, floor: float) -> float:
        """Silence, where ``floor`` is the smallest power."""


class LogMel:
    """Logarithms of mel power: powers add."""

    def log_power(self, F: Tensor) -> Tensor:
        """F."""
        return F

    def scaled(self, F: Tensor, log_gain: Tensor | float) -> Tensor:
        """``F + log_gain``."""
        return F + log_gain

    def added(self, F: Tensor, other: Tensor) -> Tensor:
        """Logarithm of the powers' sum."""
        return F.logaddexp(other)

    def padding(self, floor: float) -> float:
        """``log(floor)``."""
        return math.log(floor)


class Waveform:
    """Samples, M of them a frame: amplitudes add."""

    def log_power(self, F: Tensor) -> Tensor:
        """``log F^2``."""
        return F.square().log()

    def scaled(self, F: Tensor, log_gain: Tensor | float) -> Tensor:
        """``F e^(log_gain / 2)``."""
        return F * (math.exp(log_gain / 2) if isinstance(log_gain, float) else (log_gain / 2).exp())

    def added(self, F: Tensor, other: Tensor) -> Tensor:
        """The sum."""
        return F + other

    def padding(self, floor: float) -> float:
        """Zero."""
        return 0.0


LOG_MEL, WAVEFORM = LogMel(), Waveform()
