"""Represent CosyVoice2's speech tokens as frames of the 8 ternary digits of each code, so that reward models read tokens
directly.

Finite scalar quantization (FSQ) with 3 levels in 8 dimensions: ``digit_j = (id // 3^j) % 3 - 1``, j = 0..7, values -1, 0, 1.
There is one frame per token, 25 per second. Relaxed tokens give expected digits. The reward depends only on the policy's
tokens, before any decoder: it does not see voice, loudness or vocoder artefacts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rrpo.corpus.config import AudioConfig
from rrpo.masking import valid_mask

LEVELS, DIGITS = 3, 8
"""CosyVoice2's quantizer: 3^8 = 6561 codes."""
RATE = 25
"""Tokens per second."""


class FsqDigits:
    """A `TokenCodec` whose frames ``F [B, N, 8]`` are the digits of the codes. It has no weights and ignores speakers."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        ids = torch.arange(LEVELS**DIGITS, device=device)
        self.codebook = torch.stack([ids // LEVELS**j % LEVELS - 1 for j in range(DIGITS)], 1).float()
        """``[6561, 8]``."""
        self.audio = AudioConfig(n_mels=DIGITS, hop=16000 // RATE)
        """Frames of 40 ms with 8 values; the other fields are not used."""

    @property
    def vocabulary(self) -> int:
        """V, number of codes."""
        return len(self.codebook)

    @property
    def device(self) -> torch.device:
        """Device of the codebook."""
        return self.codebook.device

    def speaker_index(self, names: list[str]) -> Tensor:
        """Return zeros ``[B]``, because token digits have no speaker."""
        return torch.zeros(len(names), dtype=torch.long, device=self.device)

    def encode(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Round digits ``F [B, T, 8]`` to the nearest level; return ids ``[B, T]`` and lengths ``[B]``."""
        digits = F.round().clamp(-1, 1).long() + 1
        powers = LEVELS ** torch.arange(DIGITS, device=F.device)
        return (digits * powers).sum(-1).masked_fill(~valid_mask(lengths, F.shape[1]), 0), lengths

    def decode(self, tokens: Tensor, lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``F [B, N, 8]`` and lengths ``[B]``: digits of ids ``[B, N]``, or expected digits of relaxed tokens ``[B, N,
        V]``."""
        codes = self.codebook[tokens] if tokens.dim() == 2 else tokens @ self.codebook
        return self.decode_codes(codes, lengths, speaker)

    def decode_codes(self, codes: Tensor, lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows of the codebook ``[B, N, 8]`` cropped to the longest, with zeros past each length, and the lengths."""
        codes = codes[:, : int(lengths.max())]
        return codes.masked_fill(~valid_mask(lengths, codes.shape[1])[..., None], 0.0), lengths
