"""Interface of guidance methods: prefixes under which the policy is evaluated, and the combination of the resulting logits.

Notation: l_t(e) are the policy's logits of token t under the emotion tag e, l_t(0) those under the null tag. Importing this
module does not import torch.
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
    """R positions at which the next token is predicted."""

    t: Tensor
    """``[R]``: index of the token, from 0."""
    expected: Tensor
    """``[R]``: T, the expected length of the whole utterance in tokens."""
    evidence: Evidence | None
    """State of the prefix classifier after the preceding tokens; None without a classifier."""


class Guidance(Protocol):
    """Base class of guidance methods, to be derived from: a frozen dataclass whose fields are its options."""

    null_tags: ClassVar[bool] = False
    """Whether the method uses null tags, which the policy learns by tag dropout in SFT."""
    classified: ClassVar[bool] = False
    """Whether the method needs a prefix classifier."""

    def prefixes(self, policy: Policy, prefix: Tensor) -> Sequence[Tensor]:
        """Return the prefixes ``[B, L]`` under which the policy is evaluated, each as long as the prompt ``prefix [B, L]``.

        Raises:
            ValueError: The policy lacks a tag.
        """
        ...

    def combine(self, logits: Sequence[Tensor], at: Positions) -> Tensor:
        """Return the logits ``[R, V + 1]`` to sample from, given those of each of `prefixes`, ``[R, V + 1]``."""
        ...
