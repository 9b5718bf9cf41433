"""Soft-label classifier guidance as in EmoDiff (arXiv 2211.09496), for a token language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rrpo.config import Checked
from rrpo.corpus.tags import NO_EMOTION
from rrpo.identity import option
from rrpo.models.guidance.base import Guidance, Positions
from rrpo.plugins import searched

if TYPE_CHECKING:
    from torch import Tensor

    from rrpo.models.policy import Policy


@dataclass(frozen=True, kw_only=True)
class SoftLabel(Checked, Guidance):
    """l'_t[k] = l_t(0)[k] + gamma (alpha log p(e | y_<t, k) + (1 - alpha) log p(N | y_<t, k)), N the neutral class.

    p comes from the prefix classifier, the analogue of EmoDiff's classifier of noisy states. It is evaluated for the ``top``
    most likely tokens of l_t(0). For all other tokens p is taken from before the token, so that they are neither excluded nor
    favored. The distribution is exact at gamma 0 and at ``top`` V + 1.
    """

    null_tags: ClassVar[bool] = True
    classified: ClassVar[bool] = True
    gamma: float = searched(1.0, 0.0, 8.0, within="[0, inf)")
    """Strength of the classifier, range [0, inf); 0 is the policy under the null tag."""
    alpha: float = option(1.0, within="[0, 1]")
    """Intensity of the emotion, range [0, 1]; 1 is the hard label (as in EmoDiff), 0 is neutral speech."""
    top: int = option(50, within="[1, inf)")
    """Number of tokens for which the classifier is evaluated; declared default."""

    def prefixes(self, policy: Policy, prefix: Tensor) -> Sequence[Tensor]:
        """Return the prompt with the null tag for emotion."""
        return (policy.restyled(prefix, emotion=NO_EMOTION),)

    def combine(self, logits: Sequence[Tensor], at: Positions) -> Tensor:
        """Return the logits defined in the class."""
        (null,) = logits
        assert at.evidence is not None
        likely = null.topk(min(self.top, null.shape[1]), 1).indices  # [R, k]
        before, after = at.evidence.before(), at.evidence.after(likely)
        guide = self._mixture(*before)[:, None].expand_as(null).scatter(1, likely, self._mixture(*after))
        return null + self.gamma * guide

    def _mixture(self, emotion: Tensor, neutral: Tensor) -> Tensor:
        """Return the soft label's log-probability from those of the emotion and of neutral."""
        return self.alpha * emotion + (1 - self.alpha) * neutral
