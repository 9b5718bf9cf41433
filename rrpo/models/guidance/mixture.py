"""Mixed emotions by a schedule over the utterance, as EmoMix does over diffusion steps (arXiv 2306.00648)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rrpo.config import Checked
from rrpo.identity import option
from rrpo.models.guidance.base import Guidance, Positions

if TYPE_CHECKING:
    from torch import Tensor

    from rrpo.models.policy import Policy


@dataclass(frozen=True, kw_only=True)
class Mixture(Checked, Guidance):
    """l'_t = (1 - w(t/T)) l_t(e) + w(t/T) l_t(e_2), where w is 0 before ``start``, then ``weight``, and 1 from ``stop`` on.

    T is the expected length (number of phones times the paces of speaker and emotion), averaged over e and e_2.
    """

    second: str
    """e_2, the second emotion."""
    weight: float = option(0.5, within="[0, 1]")
    """w between ``start`` and ``stop``, range [0, 1]."""
    start: float = option(0.33, within="[0, inf)")
    """Fraction of the utterance at which e_2 begins, range [0, stop]; declared default."""
    stop: float = option(0.67, within="[0, inf)")
    """Fraction at which e ends, range [start, inf); at 1 or more, e_2 never occurs alone. Declared default."""

    def demands(self) -> dict[str, tuple[bool, str]]:
        """As `Checked.demands`."""
        return {"stop": (self.start <= self.stop, "stop must not be below start")}

    def prefixes(self, policy: Policy, prefix: Tensor) -> Sequence[Tensor]:
        """Return the prompt, and the prompt with the second emotion."""
        return prefix, policy.restyled(prefix, emotion=self.second)

    def combine(self, logits: Sequence[Tensor], at: Positions) -> Tensor:
        """Return the logits defined in the class."""
        w = self.second_weight(at.t / at.expected)[:, None]
        first, second = logits
        return (1 - w) * first + w * second

    def second_weight(self, share: Tensor) -> Tensor:
        """Return w at fractions ``[R]`` of the expected length, which may exceed 1."""
        return (share >= self.start) * self.weight + (share >= self.stop) * (1 - self.weight)
