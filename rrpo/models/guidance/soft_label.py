"""Soft-label classifier guidance, as EmoDiff uses it (arXiv 2211.09496), on a token language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rrpo.models.guidance.base import Guidance, Positions
from rrpo.models.tags import NO_EMOTION
from rrpo.plugins import searched

if TYPE_CHECKING:
    from torch import Tensor

    from rrpo.models.policy import Policy


@dataclass(frozen=True, kw_only=True)
class SoftLabel(Guidance):
    """l'_t[k] = l_t(0)[k] + gamma (alpha log p(e | y_<t, k) + (1 - alpha) log p(N | y_<t, k)), N the neutral class.

    p is the prefix classifier's, the analogue of EmoDiff's classifier of noisy states. It is asked for the ``top`` most likely
    tokens of l_t(0). To all others it is taken to be what it was before the token, so that they are neither cut off nor
    favoured; at gamma 0, and at ``top`` V + 1, the distribution is exact.
    """

    null_tags: ClassVar[bool] = True
    classified: ClassVar[bool] = True
    gamma: float = searched(1.0, 0.0, 8.0)
    """Strength of the classifier, range [0, inf): at 0 the policy under the null tag."""
    alpha: float = 1.0
    """Intensity of the emotion, range [0, 1]: 1 is the hard label (EmoDiff's, too), 0 neutral speech."""
    top: int = 50
    """Tokens that the classifier is asked for; declared default."""

    def __post_init__(self) -> None:
        """Raises ValueError for a value out of its range."""
        if not (self.gamma >= 0 and 0 <= self.alpha <= 1 and self.top >= 1):
            raise ValueError(
                f"gamma must be 0 or more, alpha in [0, 1] and top 1 or more, got {self.gamma}, {self.alpha}, {self.top}"
            )

    def prefixes(self, policy: Policy, prefix: Tensor) -> Sequence[Tensor]:
        """The request without its emotion."""
        return (policy.restyled(prefix, emotion=NO_EMOTION),)

    def combine(self, logits: Sequence[Tensor], at: Positions) -> Tensor:
        """See the class."""
        (null,) = logits
        assert at.evidence is not None
        likely = null.topk(min(self.top, null.shape[1]), 1).indices  # [R, k]
        before, after = at.evidence.before(), at.evidence.after(likely)
        guide = self._mixture(*before)[:, None].expand_as(null).scatter(1, likely, self._mixture(*after))
        return null + self.gamma * guide

    def _mixture(self, wanted: Tensor, neutral: Tensor) -> Tensor:
        """The soft label's log-probability, from those of the emotion and of neutral."""
        return self.alpha * wanted + (1 - self.alpha) * neutral
