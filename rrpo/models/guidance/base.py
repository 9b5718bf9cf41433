"""What a system of guided decoding is: other prefixes under which the policy is asked, and one distribution made of its answers.

Notation: l_t(e) are the policy's logits of token t under the emotion tag e, l_t(0) those under the null tag. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from rrpo.models.policy import Policy
    from rrpo.models.prefix_classifier import Evidence


@dataclass(frozen=True)
class Positions:
    """R positions whose token is predicted."""

    t: Tensor
    """``[R]`` index of the token, from 0."""
    expected: Tensor
    """``[R]`` T: length in tokens that is expected of the whole utterance."""
    evidence: Evidence | None
    """What the prefix classifier knows of the tokens before; None where the system has no classifier."""


class Guidance(Protocol):
    """Base class of systems: a frozen dataclass whose fields are its options."""

    null_tags: ClassVar[bool] = False
    """Whether it asks under null tags, which the policy learns by tag dropout in SFT."""
    classified: ClassVar[bool] = False
    """Whether it needs a prefix classifier."""

    def prefixes(self, policy: Policy, prefix: Tensor) -> Sequence[Tensor]:
        """The prefixes ``[B, L]`` under which the policy is asked, each as long as ``prefix [B, L]``, the request.

        Raises:
            ValueError: The policy does not know a tag.
        """
        ...

    def combine(self, logits: Sequence[Tensor], at: Positions) -> Tensor:
        """The logits ``[R, V + 1]`` that are sampled from those of each of `prefixes`, ``[R, V + 1]``."""
        ...
