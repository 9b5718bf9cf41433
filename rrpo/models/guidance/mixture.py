"""Mixed emotions by a schedule over the utterance, as EmoMix uses it over diffusion steps (arXiv 2306.00648)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rrpo.models.guidance.base import Guidance, Positions

if TYPE_CHECKING:
    from torch import Tensor

    from rrpo.models.policy import Policy


@dataclass(frozen=True, kw_only=True)
class Mixture(Guidance):
    """l'_t = (1 - w(t/T)) l_t(e) + w(t/T) l_t(e_2), with w 0 up to ``start``, then ``weight``, and 1 from ``stop`` on.

    T is the expected length, phones times the pace of the speaker and of the emotion, in the mean of e and e_2.
    """

    second: str
    """e_2."""
    weight: float = 0.5
    """w of the middle piece, range [0, 1]."""
    start: float = 0.33
    """Share of the utterance at which e_2 begins, range [0, stop]; declared default."""
    stop: float = 0.67
    """Share at which e ends, range [start, inf): of 1 and more, e_2 is never alone; declared default."""

    def __post_init__(self) -> None:
        """Raises ValueError for a value out of its range."""
        if not (0 <= self.weight <= 1 and 0 <= self.start <= self.stop):
            raise ValueError(
                "weight must lie in [0, 1], start be 0 or more and stop not before it, "
                f"got {self.weight}, {self.start}, {self.stop}"
            )

    def prefixes(self, policy: Policy, prefix: Tensor) -> Sequence[Tensor]:
        """The request, and the same with the second emotion."""
        return prefix, policy.restyled(prefix, emotion=self.second)

    def combine(self, logits: Sequence[Tensor], at: Positions) -> Tensor:
        """See the class."""
        w = self.second_weight(at.t / at.expected)[:, None]
        first, second = logits
        return (1 - w) * first + w * second

    def second_weight(self, share: Tensor) -> Tensor:
        """w at shares ``[R]`` of the expected length, which may exceed 1."""
        return (share >= self.start) * self.weight + (share >= self.stop) * (1 - self.weight)
