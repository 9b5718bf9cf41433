"""Protocols of a policy and a codec, as used by policy optimization, its measurements and its judges.

`rrpo.models.policy.Policy` and `rrpo.models.codec.Codec` are the embedded world's implementations. Test your own with the
contract tests of `rrpo.testing.policies` and `rrpo.testing.codecs`. Shapes: B samples, N tokens, V codes, T frames, M mel
bands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from rrpo.corpus.config import AudioConfig
from rrpo.corpus.prompts import Prompt
from rrpo.models.policy import Rollout


class TokenPolicy(Protocol):
    """A language model over V speech tokens and eos, which is class V.

    Sampling, scoring and the KL use one distribution: a token with probability p under `logits` is drawn by `sample` with
    probability p.
    """

    codes: int
    """V."""

    @property
    def max_tokens(self) -> int:
        """Maximum roll-out length in tokens; longer samples are truncated."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the trained parameters."""
        ...

    def prompt_ids(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return ids ``[B, L]`` of the prefix before the speech, padded on the left with 0, on the policy's device.

        Raises:
            ValueError: The policy does not know a phone, speaker or emotion.
        """
        ...

    def sample(self, prefix: Tensor, noise: Tensor) -> Rollout:
        """Sample one roll-out for each row of ``prefix [B, L]``, without gradient.

        Args:
            prefix: Result of `prompt_ids`, rows of it, or the same with fewer columns of padding.
            noise: Uniforms ``[max_tokens, B]``: token t of row i is the inverse CDF of its distribution at ``noise[t, i]``, so
                that arms share samples as long as their policies agree. Eos is never the first token.
        """
        ...

    def logits(self, prefix: Tensor, tokens: Tensor) -> Tensor:
        """Return ``[B, N + 1, V + 1]`` with gradient: row t predicts token t of ``tokens [B, N]`` (or eos) from those before
        it."""
        ...

    def packed_logits(self, prefix: Tensor, tokens: Tensor, counts: Tensor) -> Tensor:
        """Return ``[P, V + 1]``: the first ``counts [B]`` predictions of every row of `logits`, concatenated."""
        ...


class TokenCodec(Protocol):
    """Speech tokens <-> log-mel frames; frozen, and differentiable from relaxed tokens to frames."""

    audio: AudioConfig
    """Analysis of the frames."""
    codebook: Tensor
    """``[V, d]``, one row per code."""

    @property
    def vocabulary(self) -> int:
        """V."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        ...

    def speaker_index(self, names: list[str]) -> Tensor:
        """Return indices ``[B]`` of speakers by name.

        Raises:
            ValueError: The codec does not know a speaker.
        """
        ...

    def encode(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode ``F [B, T, M]`` with frame lengths ``[B]`` to token ids ``[B, N]`` and token lengths ``[B]``."""
        ...

    def decode(self, tokens: Tensor, lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """Decode token ids ``[B, N]`` or relaxed one-hot rows ``[B, N, V]`` to ``F [B, T, M]`` and frame lengths ``[B]``.

        Values beyond a length have no effect. Ids and their one-hot rows give the same frames.
        """
        ...

    def decode_codes(self, codes: Tensor, lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """`decode` for rows of the codebook, ``[B, N, d]``."""
        ...
