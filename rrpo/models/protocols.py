"""What policy optimisation, its measurements and its judges need of a policy and of a codec.

`rrpo.models.policy.Policy` and `rrpo.models.codec.Codec` are the embedded world's. One of your own passes the contract tests of
`rrpo.testing.policies` and `rrpo.testing.codecs`. Shapes as everywhere: B samples, N tokens, V codes, T frames, M mel bands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from rrpo.corpus.config import AudioConfig
from rrpo.corpus.prompts import Prompt
from rrpo.models.policy import Rollout


class TokenPolicy(Protocol):
    """A language model over V speech tokens and eos, which is class V.

    Sampling, scoring and the KL use one distribution: what `logits` give probability p, `sample` draws with probability p.
    """

    codes: int
    """V."""

    @property
    def max_tokens(self) -> int:
        """Longest roll-out in tokens; a sample that reaches it is cut."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is trained."""
        ...

    def prompt_ids(self, prompts: Sequence[Prompt]) -> Tensor:
        """Ids ``[B, L]`` of what comes before the speech, padded on the left with 0, on the policy's device.

        Raises:
            ValueError: The policy does not know a phone, speaker or emotion.
        """
        ...

    def sample(self, prefix: Tensor, noise: Tensor) -> Rollout:
        """One roll-out for each row of ``prefix [B, L]``, without gradient.

        Args:
            prefix: What `prompt_ids` returned, rows of it, or the same with fewer columns of padding.
            noise: Uniforms ``[max_tokens, B]``: token t of row i is the inverse of its distribution's cumulative function at
                ``noise[t, i]``, so that arms share samples as long as their policies agree. Eos is never the first token.
        """
        ...

    def logits(self, prefix: Tensor, tokens: Tensor) -> Tensor:
        """``[B, N + 1, V + 1]`` with gradient: row t predicts token t of ``tokens [B, N]`` (or eos) from those before it."""
        ...

    def packed_logits(self, prefix: Tensor, tokens: Tensor, counts: Tensor) -> Tensor:
        """``[P, V + 1]``: the first ``counts [B]`` predictions of every row of `logits`, one row after another."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights and description into ``folder``."""
        ...

    @staticmethod
    def load(folder: Path, device: str = "cpu") -> TokenPolicy:
        """Read what `save` wrote, in evaluation mode."""
        ...


class TokenCodec(Protocol):
    """Speech tokens <-> log-mel frames; frozen, and differentiable from relaxed tokens to frames."""

    audio: AudioConfig
    """Analysis of the frames."""
    codebook: Tensor
    """``[V, d]``, a row a code."""

    @property
    def vocabulary(self) -> int:
        """V."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def speaker_index(self, names: list[str]) -> Tensor:
        """Speaker names -> indices ``[B]``.

        Raises:
            ValueError: The codec does not know a speaker.
        """
        ...

    def encode(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``F [B, T, M]``, frames of each ``[B]`` -> token ids ``[B, N]`` and their numbers ``[B]``."""
        ...

    def decode(self, tokens: Tensor, lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids ``[B, N]`` or relaxed one-hot rows ``[B, N, V]`` -> ``F [B, T, M]`` and frames of each ``[B]``.

        What stands past a length does not matter. Ids and their one-hot rows give the same frames.
        """
        ...

    def decode_codes(self, codes: Tensor, lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """`decode` of rows of the codebook, ``[B, N, d]``."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights and description into ``folder``."""
        ...

    @staticmethod
    def load(folder: Path, device: str = "cpu") -> TokenCodec:
        """Read what `save` wrote; frozen, in evaluation mode."""
        ...
