"""Operations on the input signals of reward models for mixup: scale, add and measure log-mel frames, waveforms or token digits.

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

    def added(self, F: Tensor, other: Tensor, log_gain: Tensor | float) -> Tensor:
        """Return the sum of F and the other sound amplified by ``log_gain``."""

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

    def added(self, F: Tensor, other: Tensor, log_gain: Tensor | float) -> Tensor:
        """Return the logarithm of the sum of powers."""
        return F.logaddexp(self.scaled(other, log_gain))

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

    def added(self, F: Tensor, other: Tensor, log_gain: Tensor | float) -> Tensor:
        """Return the sum."""
        return F + self.scaled(other, log_gain)

    def padding(self, floor: float) -> float:
        """Return zero."""
        return 0.0


class TokenDigits:
    """Digits of speech tokens, which have no loudness: every token has the same power, and a sum is a relaxed token.

    This is our form of mixup on tokens; no source defines one.
    """

    def log_power(self, F: Tensor) -> Tensor:
        """Return zeros."""
        return F.new_zeros(F.shape)

    def scaled(self, F: Tensor, log_gain: Tensor | float) -> Tensor:
        """Return F."""
        return F

    def added(self, F: Tensor, other: Tensor, log_gain: Tensor | float) -> Tensor:
        """Return the expected digits if each token is the other's with its share of the power, ``g / (1 + g)``."""
        share = 1 / (1 + math.exp(-log_gain)) if isinstance(log_gain, float) else log_gain.sigmoid()
        return F.lerp(other, share)

    def padding(self, floor: float) -> float:
        """Return zero, the middle of the digits."""
        return 0.0


LOG_MEL, WAVEFORM, TOKEN_DIGITS = LogMel(), Waveform(), TokenDigits()
