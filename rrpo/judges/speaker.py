"""Speaker similarity by a published speaker encoder (GE2E, Wan et al. 2018) whose weights lie in the wheel ``resemblyzer``.

Only the weights are read: the package itself wants librosa and a compiler, so it is installed without its dependencies
(``pip install --no-deps resemblyzer``). Level is normalised, silence is not trimmed. The encoder heard real speech; how far
it tells this world's voices apart is measured beside it (`rrpo.judges.yardsticks`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torchaudio.transforms as tat
from torch import Tensor, nn

RATE = 16000
"""Hz that it expects."""
WINDOW, HOP, MELS = 400, 160, 40
"""Samples, samples, bands of its mel power spectrum."""
FRAMES, STEP = 160, 77
"""Frames of a partial utterance, and between two."""
COVERAGE = 0.75
"""Share of a last partial utterance that must be speech and not padding."""
SIZE = 256
"""Of its three recurrent layers and of the embedding."""
LEVEL = -30.0
"""dB of full scale to which a softer wave is raised."""
CHUNK = 64
"""Partial utterances at once."""


def available() -> bool:
    """Whether the weights are installed."""
    return _weights() is not None


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, SIZE, 3, batch_first=True)
        self.linear = nn.Linear(SIZE, SIZE)

    def forward(self, mels: Tensor) -> Tensor:
        """``[P, FRAMES, MELS]`` -> unit vectors ``[P, SIZE]``, no component negative."""
        _, (hidden, _) = self.lstm(mels)
        return nn.functional.normalize(self.linear(hidden[-1]).relu(), dim=1)


@torch.no_grad()
def embeddings(waves: Sequence[np.ndarray]) -> np.ndarray:
    """Unit vectors ``[n, SIZE]`` of waves ``[S]`` at `RATE`; cosine similarity is their product."""
    parts = [_partials(np.asarray(wave, dtype=np.float32)) for wave in waves]
    together = torch.cat(parts)
    found = torch.cat([_encoder()(chunk) for chunk in together.split(CHUNK)]).split([len(part) for part in parts])
    return np.array([nn.functional.normalize(each.mean(0), dim=0).numpy() for each in found])


def _partials(wave: np.ndarray) -> Tensor:
    """Overlapping mel spectrograms ``[P, FRAMES, MELS]`` that cover ``wave [S]``."""
    level = 10 * np.log10(np.mean(np.square(wave)) + 1e-12) if len(wave) else 0.0
    wave = wave * 10 ** (max(0.0, LEVEL - level) / 20) if level > -100 else wave
    frames = -(-(len(wave) + 1) // HOP)
    starts = list(range(0, max(1, frames - FRAMES + STEP + 1), STEP))
    if len(starts) > 1 and (len(wave) - starts[-1] * HOP) / (FRAMES * HOP) < COVERAGE:
        starts.pop()
    padded = np.pad(wave, (0, max(0, (starts[-1] + FRAMES) * HOP - len(wave))))
    mel = _mel()(torch.from_numpy(padded)).T  # [frames, MELS]
    return torch.stack([mel[start : start + FRAMES] for start in starts])


@lru_cache(maxsize=1)
def _mel() -> tat.MelSpectrogram:
    return tat.MelSpectrogram(
        RATE, WINDOW, hop_length=HOP, n_mels=MELS, power=2.0, norm="slaney", mel_scale="slaney", pad_mode="constant"
    )


@lru_cache(maxsize=1)
def _encoder() -> _Encoder:
    path = _weights()
    assert path is not None, "available() comes first"
    stored = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    encoder = _Encoder()
    encoder.load_state_dict({name: value for name, value in stored.items() if name.split(".")[0] in ("lstm", "linear")})
    return encoder.eval().requires_grad_(False)


def _weights() -> Path | None:
    spec = importlib.util.find_spec("resemblyzer")
    path = Path(spec.origin).parent / "pretrained.pt" if spec is not None and spec.origin else None
    return path if path is not None and path.is_file() else None
