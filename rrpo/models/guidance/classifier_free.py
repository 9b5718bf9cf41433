"""Classifier-free guidance as in ZET-Speech (arXiv 2305.13831), for a token language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rrpo.config import Checked
from rrpo.corpus.tags import NO_EMOTION, NO_SPEAKER
from rrpo.models.guidance.base import Guidance, Positions
from rrpo.plugins import searched

if TYPE_CHECKING:
    from torch import Tensor

    from rrpo.models.policy import Policy


@dataclass(frozen=True, kw_only=True)
class ClassifierFree(Checked, Guidance):
    """l'_t = l_t(e) + gamma (l_t(e) - l_t(0)), where 0 is the null tag for both emotion and speaker.

    ZET-Speech nulls both the label and the prior of its diffusion decoder; here, the tags before the text correspond to the
    prior.
    """

    null_tags: ClassVar[bool] = True
    gamma: float = searched(1.5, 0.0, 8.0, within="[0, inf)")
    """Strength, range [0, inf); 0 is the unguided policy. ZET-Speech uses 1.25 to 1.5 on diffusion scores."""

    def prefixes(self, policy: Policy, prefix: Tensor) -> Sequence[Tensor]:
        """Return the prompt, and the prompt with null tags for emotion and speaker."""
        return prefix, policy.restyled(prefix, emotion=NO_EMOTION, speaker=NO_SPEAKER)

    def combine(self, logits: Sequence[Tensor], at: Positions) -> Tensor:
        """Return the logits defined in the class."""
        conditional, null = logits
        return conditional + self.gamma * (conditional - null)
