"""CosyVoice2's speech tokens as frames: the 8 ternary digits of each code, so that reward models hear tokens themselves.

Finite scalar quantisation (FSQ) with 3 levels in 8 dimensions: ``digit_j = (id // 3^j) % 3 - 1``, j = 0..7, values -1, 0, 1. One
frame a token, 25 a second. Relaxed tokens give expected digits. What is rewarded is what the policy says, before any decoder: no
voice, no loudness, no artefact of a vocoder is heard.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from rrpo.corpus.config import AudioConfig
from rrpo.errors import InputError
from rrpo.masking import valid_mask

LEVELS, DIGITS = 3, 8
"""Of CosyVoice2: 3^8 = 6561 codes."""
RATE = 25
"""Tokens a second."""


class FsqDigits:
    """A `TokenCodec` whose frames ``F [B, N, 8]`` are the codes' digits. It has no weights and knows every speaker: none."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        ids = torch.arange(LEVELS**DIGITS, device=device)
        self.codebook = torch.stack([ids // LEVELS**j % LEVELS - 1 for j in range(DIGITS)], 1).float()
        """``[6561, 8]``."""
        self.audio = AudioConfig(n_mels=DIGITS, hop=16000 // RATE)
        """Frames of 40 ms with 8 values; nothing else of it has a meaning here."""

    @property
    def vocabulary(self) -> int:
        """V."""
        return len(self.codebook)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.codebook.device

    def speaker_index(self, names: list[str]) -> Tensor:
        """Zeros ``[B]``: there is no voice in the tokens' digits."""
        return torch.zeros(len(names), dtype=torch.long, device=self.device)

    def encode(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Digits ``F [B, T, 8]``, rounded to the next level -> ids ``[B, T]``, and their numbers ``[B]``."""
        digits = F.round().clamp(-1, 1).long() + 1
        powers = LEVELS ** torch.arange(DIGITS, device=F.device)
        return (digits * powers).sum(-1).masked_fill(~valid_mask(lengths, F.shape[1]), 0), lengths

    def decode(self, tokens: Tensor, lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """Digits of ids ``[B, N]``, expected digits of relaxed rows ``[B, N, V]``: ``F [B, N, 8]``, frames of each ``[B]``."""
        codes = self.codebook[tokens] if tokens.dim() == 2 else tokens @ self.codebook
        return self.decode_codes(codes, lengths, speaker)

    def decode_codes(self, codes: Tensor, lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the codebook ``[B, N, 8]``, up to the longest; zeros past each length."""
        codes = codes[:, : int(lengths.max())]
        return codes.masked_fill(~valid_mask(lengths, codes.shape[1])[..., None], 0.0), lengths

    def save(self, folder: Path) -> None:
        """Writes what it is; it has no weights."""
        (folder / "fsq.json").write_text(json.dumps({"levels": LEVELS, "digits": DIGITS, "audio": asdict(self.audio)}))

    @staticmethod
    def load(folder: Path, device: str = "cpu") -> FsqDigits:
        """Reads what `save` wrote.

        Raises:
            ValueError: The file is another codec's.
        """
        about = json.loads((folder / "fsq.json").read_text())
        if (about["levels"], about["digits"]) != (LEVELS, DIGITS):
            raise InputError(
                f"{folder} is another codec",
                got=f"{about['digits']} digits of {about['levels']} levels",
                fix=f"CosyVoice2 has {DIGITS} digits of {LEVELS} levels",
            )
        return FsqDigits(device)
