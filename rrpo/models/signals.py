"""Operations on the input signals of reward models for mixup: scale, add and measure log-mel frames or waveforms.

Importing this module does not import torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Signal(Protocol):
    """Frames ``F [B, T, M]`` of one kind; gains and powers are natural logarithms of power ratios."""

    def log_power(self, F: Tensor) -> Tensor:
        """Return the log power of each value of F."""

    def scaled(self, F: Tensor, log_gain: Tensor | float) -> Tensor:
        """Return F amplified by ``log_gain``."""

    def added(self, F: Tensor, other: Tensor) -> Tensor:
        """Return the sum of both sounds."""

    def padding(self, floor: float) -> float:
        """Return the value of silence, where ``floor`` is the minimum power."""


class LogMel:
    """Log mel power; powers add."""

    def log_power(self, F: Tensor) -> Tensor:
        """Return F."""
        return F

    def scaled(self, F: Tensor, log_gain: Tensor | float) -> Tensor:
        """Return ``F + log_gain``."""
        return F + log_gain

    def added(self, F: Tensor, other: Tensor) -> Tensor:
        """Return the logarithm of the sum of powers."""
        return F.logaddexp(other)

    def padding(self, floor: float) -> float:
        """Return ``log(floor)``."""
        return math.log(floor)


class Waveform:
    """Waveform with M samples per frame; amplitudes add."""

    def log_power(self, F: Tensor) -> Tensor:
        """Return ``log F^2``."""
        return F.square().log()

    def scaled(self, F: Tensor, log_gain: Tensor | float) -> Tensor:
        """Return ``F e^(log_gain / 2)``."""
        return F * (math.exp(log_gain / 2) if isinstance(log_gain, float) else (log_gain / 2).exp())

    def added(self, F: Tensor, other: Tensor) -> Tensor:
        """Return the sum."""
        return F + other

    def padding(self, floor: float) -> float:
        """Return zero."""
        return 0.0


LOG_MEL, WAVEFORM = LogMel(), Waveform()
