"""Codec: mel -> discrete tokens at 25 Hz -> mel, differentiable from relaxed tokens.

An encoder halves the frame rate. Finite scalar quantization (FSQ, arXiv 2309.15505; also CosyVoice2's quantizer) maps each step
to one of V codes. A decoder conditioned on the speaker maps codes back to frames, so that the codes need not carry the
speaker's identity. The decoder is a source-filter model: for each frame it predicts a spectral envelope, an F0 and the voicing
of each band, and harmonics are added by rule (`rrpo.models.pitch`). F0 and voicing therefore survive codes that are too coarse
for the harmonics themselves. `Codec.decode` takes token ids ``[B, N]`` or (relaxed) one-hot rows ``[B, N, V]``: both are looked
up in the same codebook, so decoding ids equals decoding their one-hot rows.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F_
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ

from rrpo.config import CodecConfig
from rrpo.corpus.config import AudioConfig
from rrpo.masking import masked_mean, neighbours, valid_mask
from rrpo.models import pitch

WIDTH = 5
"""Kernel width of the convolutions, in steps."""
SQUARED = 1.0
"""Weight of the squared error in the training loss; declared default."""
PITCHED = 0.1
"""Weight of the F0 error per semitone; declared default."""
OCTAVE = 12.0
"""Semitones of F0 per unit of the decoder's output, and the cap on the F0 error per frame, because the tracker sometimes has
octave errors."""
VOICED = (0.5, 0.8)
"""Similarities of a frame to a comb at which its F0 error starts to count and at which it counts fully."""
MIDDLE = 160.0
"""F0 of an untrained decoder, in Hz."""


class ResidualBlock(nn.Module):
    """Masked convolution over time, normalized per frame, so that padding never leaks. ``[B, T, C] -> [B, T, C]``."""

    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.wide = nn.Linear(WIDTH * dim, dim)
        self.narrow = nn.Linear(dim, dim)
        self.dilation = dilation

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.wide(neighbours(self.norm(x) * mask, WIDTH, self.dilation))
        return x + self.narrow(F_.silu(y))


class Codec(nn.Module):
    """Encoder, FSQ and speaker-conditioned decoder on raw log-mel frames ``F [B, T, M]``."""

    mean: Tensor
    std: Tensor
    codebook: Tensor
    combs: Tensor

    def __init__(self, config: CodecConfig, audio: AudioConfig, speakers: tuple[str, ...]) -> None:
        super().__init__()
        self.config, self.audio, self.speakers = config, audio, tuple(speakers)
        dim, codes = config.dim, len(config.levels)
        self.quantiser = FSQ(list(config.levels))
        self.register_buffer("codebook", self.quantiser.implicit_codebook.float().clone())
        self.register_buffer("combs", pitch.combs(audio).clone(), persistent=False)
        self.register_buffer("mean", torch.zeros(audio.n_mels))
        self.register_buffer("std", torch.ones(audio.n_mels))
        self.inlet = nn.Linear(2 * audio.n_mels, dim)
        self.encoder = nn.ModuleList(ResidualBlock(dim, dilation) for dilation in (1, 2))
        self.to_code = nn.Linear(dim, codes)
        self.from_code = nn.Linear(codes, dim)
        self.speaker = nn.Embedding(len(self.speakers), dim)
        self.decoder = nn.ModuleList(ResidualBlock(dim, dilation) for dilation in (1, 2, 4, 1))
        self.outlet = nn.Linear(dim, 2 * (2 * audio.n_mels + 1))

    @property
    def vocabulary(self) -> int:
        """V, the number of codes."""
        return self.quantiser.codebook_size

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.mean.device

    def speaker_index(self, names: list[str], *, average: bool = False) -> Tensor:
        """Return indices ``[B]`` into the decoder's speaker table.

        Args:
            names: B speakers.
            average: Use the mean voice for speakers that the codec was not trained on, for a user's own recordings.

        Raises:
            ValueError: A speaker is unknown and ``average`` is False.
        """
        table = {name: index for index, name in enumerate(self.speakers)}
        unknown = sorted({name for name in names if name not in table})
        if unknown and not average:
            raise ValueError(
                f"the codec was not trained on speaker {unknown[0]!r} ({len(unknown)} unknown in total); "
                f"it knows {len(self.speakers)} speakers; add utterances of the speaker to the codec's split"
            )
        return torch.tensor([table.get(name, len(self.speakers)) for name in names], device=self.mean.device)

    def _codes(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return quantized codes ``[B, N, d]``, their ids ``[B, N]`` and token lengths ``[B]``."""
        if F.shape[1] % 2:
            F = F_.pad(F, (0, 0, 0, 1))
        F = (F - self.mean) / self.std * valid_mask(lengths, F.shape[1])[..., None]
        steps = (lengths + 1) // 2
        mask = valid_mask(steps, F.shape[1] // 2)[..., None]
        x = self.inlet(F.reshape(F.shape[0], F.shape[1] // 2, -1))
        for block in self.encoder:
            x = block(x, mask)
        codes, ids = self.quantiser(self.to_code(x).float())
        return codes, ids.long(), steps

    def encode(self, F: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode ``F [B, T, M]`` to token ids ``[B, N]``, N = ceil(T / 2), and token lengths ``[B]``."""
        _, ids, steps = self._codes(F, lengths)
        return ids, steps

    def decode(self, tokens: Tensor, lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """Decode token ids ``[B, N]`` or relaxed one-hot rows ``[B, N, V]`` to ``F [B, 2N, M]`` and frame lengths ``[B]``.

        Positions beyond a length may hold any finite value: they are masked, and the output there is the floor.
        """
        relaxed = tokens.is_floating_point()
        codes = tokens @ self.codebook.to(tokens.dtype) if relaxed else self.codebook[tokens.clamp(min=0)]
        return self.decode_codes(codes, lengths, speaker)

    def decode_codes(self, codes: Tensor, lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """`decode` for rows of the codebook, ``[B, N, d]``."""
        F, frames, _ = self._decode(codes, lengths, speaker)
        return F, frames

    def _decode(self, codes: Tensor, lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return frames ``F [B, 2N, M]``, their number ``[B]``, and their F0 ``[B, 2N]`` as a row of
        `rrpo.models.pitch.combs`."""
        mask = valid_mask(lengths, codes.shape[1])[..., None]
        voices = torch.cat([self.speaker.weight, self.speaker.weight.mean(0, keepdim=True)])
        x = self.from_code(codes) + F_.embedding(speaker, voices)[:, None]
        for block in self.decoder:
            x = block(x, mask)
        bands = self.audio.n_mels
        envelope, voiced, octave = (
            self.outlet(x).reshape(len(x), 2 * x.shape[1], -1).float().split([bands, bands, 1], 2)
        )
        f0 = (pitch.row(MIDDLE) + OCTAVE * pitch.ROWS * octave[..., 0]).clamp(0, len(self.combs) - 1)
        # add the powers of noise and comb
        voice = torch.log1p(voiced.sigmoid() * torch.expm1(pitch.comb(self.combs, f0)))
        F = envelope * self.std + self.mean + voice
        floor = math.log(self.audio.floor)
        frames = 2 * lengths
        return F.clamp(min=floor).masked_fill(~valid_mask(frames, F.shape[1])[..., None], floor), frames, f0

    @torch.no_grad()
    def resynthesise(self, F: Tensor, lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """Encode and decode ``F``; lengths are rounded up to even."""
        tokens, steps = self.encode(F, lengths)
        return self.decode(tokens, steps, speaker)

    def loss(self, F: Tensor, lengths: Tensor, speaker: Tensor) -> Tensor:
        """Return the mean absolute error of the normalized log-mel over valid frames, plus `SQUARED` times the mean squared error
        and `PITCHED` times the F0 error in semitones on voiced frames.

        With absolute errors alone, the codec drops what is rare and narrow, such as a hum or a whine; with errors of bands
        alone, F0.
        """
        error, semitones = self.errors(F, lengths, speaker)
        spectral = masked_mean((error.abs() + SQUARED * error.square()).mean(2), valid_mask(lengths, F.shape[1])).mean()
        return spectral + PITCHED * semitones

    def errors(self, F: Tensor, lengths: Tensor, speaker: Tensor) -> tuple[Tensor, Tensor]:
        """Return the error of re-synthesized ``F [B, T, M]`` in standard deviations of each band, and the mean absolute error of
        its F0 in semitones, capped at an octave per frame and weighted by voicing."""
        codes, _, steps = self._codes(F, lengths)
        decoded, _, f0 = self._decode(codes, steps, speaker)
        target_row, similarity = pitch.tracked(F, self.audio)
        semitones = ((f0[:, : F.shape[1]] - target_row).abs() / pitch.ROWS).clamp(max=OCTAVE)
        lower, upper = VOICED
        voiced = ((similarity - lower) / (upper - lower)).clamp(0, 1) * valid_mask(lengths, F.shape[1])
        return (decoded[:, : F.shape[1]] - F) / self.std, (semitones * voiced).sum() / voiced.sum().clamp(min=1)

    def save(self, folder: Path) -> None:
        """Write weights and description into ``folder``."""
        torch.save(self.state_dict(), folder / "codec.pt")
        description = {"config": asdict(self.config), "audio": asdict(self.audio), "speakers": self.speakers}
        (folder / "codec.json").write_text(json.dumps(description))

    @staticmethod
    def load(folder: Path, device: str = "cpu") -> Codec:
        """Load a codec written by `save`; frozen, in evaluation mode."""
        description = json.loads((folder / "codec.json").read_text())
        config = CodecConfig(**{**description["config"], "levels": tuple(description["config"]["levels"])})
        codec = Codec(config, AudioConfig(**description["audio"]), tuple(description["speakers"]))
        codec.load_state_dict(torch.load(folder / "codec.pt", map_location="cpu", weights_only=True))
        return codec.to(device).eval().requires_grad_(False)
